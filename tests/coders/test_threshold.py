"""The one-step code for any dictionary."""

import pytest
import torch

from atomlab.coders import threshold_coder
from atomlab.sae.ops import encode_csr
from tests.coders.cases import metric_of, problem


@pytest.mark.parametrize("in_metric", [False, True])
def test_pre_activations_are_inner_products_with_unit_atoms_and_l0_is_the_target(in_metric: bool) -> None:
    x, dictionary, bias = problem(samples=400)
    metric = metric_of(16) if in_metric else None
    state = torch.get_rng_state()
    sae = threshold_coder(dictionary, bias, x, 3.25, metric)
    assert torch.equal(torch.get_rng_state(), state)
    matrix = metric.matrix if metric else torch.eye(16).double()
    norms = torch.einsum("nd,de,ne->n", dictionary, matrix, dictionary).sqrt()
    z = torch.einsum("sd,de,ne->sn", x - bias, matrix, dictionary) / norms
    torch.testing.assert_close(sae.pre_activations(x), z)
    torch.testing.assert_close(sae.W_dec, dictionary / norms[:, None], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(sae.b_dec, bias)
    codes = encode_csr(sae, x)
    assert len(codes.values()) == 3.25 * 400
    firings = torch.bincount(codes.col_indices(), minlength=40)
    assert firings.min() > 0.5 * firings.max()  # about equally often: thresholds are quantiles up to one factor


def test_the_code_is_that_of_any_rescaled_dictionary_and_float32_stays_float32() -> None:
    x, dictionary, bias = problem(samples=400)
    scale = torch.logspace(2, -2, 40).double()[:, None]
    codes = encode_csr(threshold_coder(dictionary, bias, x, 3.0, metric_of(16)), x).to_dense()
    scaled = encode_csr(threshold_coder(dictionary * scale, bias, x, 3.0, metric_of(16)), x).to_dense()
    torch.testing.assert_close(codes, scaled)
    sae = threshold_coder(dictionary.float(), bias, x.float(), 3.0, metric_of(16))
    assert {weight.dtype for weight in sae.parameters()} == {torch.float32}
    assert all(weight.requires_grad and not weight.is_meta for weight in sae.parameters())


def test_an_l0_that_positive_pairs_do_not_reach_is_refused() -> None:
    x, dictionary, bias = problem(samples=400)
    with pytest.raises(ValueError, match="No factor"):
        threshold_coder(dictionary, bias, x, 39.0)
    dictionary[4] = 0
    with pytest.raises(ValueError, match="Atom 4"):
        threshold_coder(dictionary, bias, x, 3.0)
