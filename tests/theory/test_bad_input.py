"""Bad input has a defined result or one clear sentence, in every function that takes a dictionary, codes or vectors."""

import math
from collections.abc import Callable

import jaxtyping
import pytest
import torch

from atomlab.theory import (
    AtomicInnerProduct,
    babel_function,
    basis_pursuit,
    dual_certificates,
    empirical_isometry,
    exact_recovery_coefficients,
    explained_variance,
    isometry_ratios,
    match_atoms,
    mutual_coherence,
    orthogonal_matching_pursuit,
    random_codes,
    recovery_levels,
    refit_codes,
    restricted_isometry_bounds,
    restricted_isometry_curve,
    shared_thresholds,
    solved_recovery,
    stability_pairwise,
    stability_per_atom,
    support_recovery,
    threshold_windows,
    variance_sums,
)

N, D, SAMPLES = 6, 4, 3


@pytest.fixture(autouse=True)
def _without_shape_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests check jaxtyping's annotations on every call; users do not, so these see the functions' own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


DICTIONARY, X = gaussian(N, D), gaussian(SAMPLES, D)
CODES = torch.tensor([[1.0, 2, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
SIZES = torch.tensor([1, 1, 1])

OF_DICTIONARY: dict[str, Callable[[torch.Tensor], object]] = {
    "coherence": mutual_coherence,
    "babel": lambda d: babel_function(d, 2),
    "isometry": lambda d: restricted_isometry_bounds(d, 2),
    "curve": lambda d: restricted_isometry_curve(d, 2),
    "pairwise": lambda d: stability_pairwise(d, SIZES),
    "per_atom": lambda d: stability_per_atom(d, SIZES),
    "match": lambda d: match_atoms(d, DICTIONARY),
    "pursuit": lambda d: orthogonal_matching_pursuit(X, d, 2),
}
OF_CODES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "erc": exact_recovery_coefficients,
    "dual": dual_certificates,
    "levels": lambda c, d: recovery_levels(c, d, solve=False),
    "solved": solved_recovery,
    "empirical": empirical_isometry,
    "windows": threshold_windows,
    "refit": lambda c, d: refit_codes(X[: len(c)], c, d),
    "shared": lambda c, d: shared_thresholds(X[: len(c)], c, d),
    "recovery": lambda c, d: support_recovery(X[: len(c)], c, d, torch.zeros(N)),
}
OF_VECTORS: dict[str, Callable[[torch.Tensor], object]] = {
    "pursuit": lambda x: orthogonal_matching_pursuit(x, DICTIONARY, 2),
    "basis_pursuit": lambda x: basis_pursuit(x, DICTIONARY),
    "refit": lambda x: refit_codes(x, CODES, DICTIONARY),
    "shared": lambda x: shared_thresholds(x, CODES, DICTIONARY),
    "recovery": lambda x: support_recovery(x, CODES, DICTIONARY, torch.zeros(N)),
}


def spoiled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    copy = tensor.clone()
    copy[0, 0] = value
    return copy


def zero_atom() -> torch.Tensor:
    copy = DICTIONARY.clone()
    copy[2] = 0
    return copy


BAD_DICTIONARIES = [
    (spoiled(DICTIONARY, math.nan), "NaN"),
    (spoiled(DICTIONARY, math.inf), "infinite"),
    (zero_atom(), "Atom 2"),
]


@pytest.mark.parametrize(("dictionary", "words"), BAD_DICTIONARIES, ids=["nan", "inf", "zero atom"])
@pytest.mark.parametrize("name", [*OF_DICTIONARY, *OF_CODES])
def test_bad_dictionaries(name: str, dictionary: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OF_DICTIONARY[name](dictionary) if name in OF_DICTIONARY else OF_CODES[name](CODES, dictionary)


@pytest.mark.parametrize("name", OF_DICTIONARY)
def test_a_vector_is_no_dictionary(name: str) -> None:
    with pytest.raises(ValueError, match="matrix"):
        OF_DICTIONARY[name](DICTIONARY[0])


@pytest.mark.parametrize("name", [*OF_CODES, "ratios"])
def test_bad_codes(name: str) -> None:
    run = OF_CODES.get(name, isometry_ratios)
    for codes, words in (
        (spoiled(CODES, math.nan), "NaN"),
        (spoiled(CODES, math.inf), "infinite"),
        (CODES[:, :5], "6 atoms"),
        (CODES[0], "matrix"),
    ):
        with pytest.raises(ValueError, match=words):
            run(codes, DICTIONARY)


@pytest.mark.parametrize("name", OF_VECTORS)
def test_bad_vectors(name: str) -> None:
    for x, words in ((spoiled(X, math.nan), "NaN"), (spoiled(X, math.inf), "infinite"), (X[:, :3], "4")):
        with pytest.raises(ValueError, match=words):
            OF_VECTORS[name](x)


@pytest.mark.parametrize("name", ["refit", "shared", "recovery"])
def test_vectors_without_a_code(name: str) -> None:
    with pytest.raises(ValueError, match="2 vectors"):
        OF_VECTORS[name](X[:2])


def test_codes_without_an_atom_and_no_codes_at_all_have_defined_results() -> None:
    """K = 0: NaN where a number is asked for, False where a verdict is; no samples: empty results."""
    for codes in (torch.zeros(2, N, dtype=torch.float64), CODES[:0]):
        x, count = X[: len(codes)], len(codes)
        for numbers in (
            exact_recovery_coefficients(codes, DICTIONARY),
            dual_certificates(codes, DICTIONARY),
            isometry_ratios(codes, DICTIONARY),
            empirical_isometry(codes, DICTIONARY).constant,
            threshold_windows(codes, DICTIONARY).lower,
        ):
            assert numbers.shape == (count,)
            assert numbers.isnan().all()
        recovered = support_recovery(x, codes, DICTIONARY, torch.zeros(N))
        levels = recovery_levels(codes, DICTIONARY)
        for verdicts in (
            threshold_windows(codes, DICTIONARY).feasible,
            recovered.shared,
            recovered.oracle,
            levels.coherence,
            levels.exact_recovery,
            levels.dual_certificate,
            levels.solved,
        ):
            assert verdicts is not None
            assert verdicts.shape == (count,)
            assert not verdicts.any()
        assert all(math.isnan(rate) for rate in levels.rates().values())
        assert shared_thresholds(x, codes, DICTIONARY).isinf().all()  # no latent should ever fire
        assert not refit_codes(x, codes, DICTIONARY).mask.any()
        assert random_codes(codes).shape == codes.shape
    assert math.isnan(stability_pairwise(DICTIONARY, torch.zeros(N + 1, dtype=torch.int64)))
    assert explained_variance(torch.zeros(D + 2, dtype=torch.float64), 0).isnan()


def test_supports_larger_than_the_dictionary_or_the_space() -> None:
    for k, limit in ((0, 4), (5, 4)):
        with pytest.raises(ValueError, match=f"K={k} .*{limit}"):
            orthogonal_matching_pursuit(X, DICTIONARY, k)
    with pytest.raises(ValueError, match="K=7"):
        restricted_isometry_bounds(DICTIONARY, N + 1)
    assert restricted_isometry_bounds(DICTIONARY, D + 1).lower >= 1 - 1e-12  # dependent
    everything = torch.ones(1, N, dtype=torch.float64)  # K = n > d
    assert dual_certificates(everything, DICTIONARY).isinf().all()
    assert exact_recovery_coefficients(everything, DICTIONARY).isinf().all()
    assert babel_function(DICTIONARY, 50) == babel_function(DICTIONARY, N - 1)


def test_metrics_of_another_width_or_without_full_rank() -> None:
    with pytest.raises(ValueError, match="width 4, the metric of width 3"):
        mutual_coherence(DICTIONARY, AtomicInnerProduct(torch.eye(3)))
    with pytest.raises(ValueError, match="rank 2 of 4"):
        AtomicInnerProduct.from_dictionary(DICTIONARY[:2])
    assert AtomicInnerProduct.from_dictionary(DICTIONARY[:2], shrinkage=0.1).condition_number > 1


def test_reconstructions_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(1, 4\)"):
        variance_sums(X, X[:1])
    with pytest.raises(ValueError, match="NaN"):
        variance_sums(X, spoiled(X, math.inf))
