"""The coders by name: each name gives its coder, and options that do not belong to it are refused."""

import pytest
import torch

from atomlab import encode
from atomlab.coders import ThresholdPursuit, nonnegative_omp, omp, refit, threshold_pursuit
from atomlab.sae.ops import encode_csr
from tests.coders.cases import check_csr, metric_of, problem, trained


def test_each_name_is_its_coder() -> None:
    x, dictionary, bias = problem()
    sae, metric, pursuit, y = trained(dictionary, bias), metric_of(16), ThresholdPursuit(1.1, (0.7,)), x - bias
    own = encode_csr(sae, x)
    cases = (
        (encode(sae, x), own),
        (encode(sae, x, "refit", metric=metric), refit(y, dictionary, own, metric)),
        (
            encode(sae, x, "threshold_pursuit", pursuit=pursuit, metric=metric),
            threshold_pursuit(sae, x, pursuit, metric),
        ),
        (encode(sae, x, "omp", k=4), omp(y, dictionary, 4)),
        (encode(sae, x, "nonnegative_omp", k=4, metric=metric), nonnegative_omp(y, dictionary, 4, metric)),
    )
    for found, expected in cases:
        check_csr(found, (60, 40), torch.float64)
        assert torch.equal(found.to_dense(), expected.to_dense())
    assert len({len(found.values()) for found, _ in cases}) > 3  # the coders differ here


@pytest.mark.parametrize(
    ("coder", "options", "said"),
    [
        ("topk", {}, "no coder 'topk'"),
        ("threshold", {"metric": True}, "takes no metric"),
        ("refit", {"k": 3}, "takes no k"),
        ("omp", {}, "needs k"),
        ("omp", {"k": 3, "pursuit": ThresholdPursuit(1.0)}, "takes no pursuit"),
        ("nonnegative_omp", {}, "needs k"),
        ("threshold_pursuit", {}, "needs pursuit"),
        ("threshold_pursuit", {"k": 2}, "takes no k"),
    ],
)
def test_wrong_combinations_are_refused_in_one_sentence(coder: str, options: dict, said: str) -> None:
    x, dictionary, bias = problem()
    if "metric" in options:
        options = options | {"metric": metric_of(16)}
    with pytest.raises(ValueError, match=said):
        encode(trained(dictionary, bias), x, coder, **options)
