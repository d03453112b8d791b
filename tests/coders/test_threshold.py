"""The one-step code for any dictionary, and the one factor of all thresholds, against counting every pair."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.coders import threshold_coder
from atomlab.sae import ThresholdSAE, calibrate_thresholds_, rescale_thresholds_
from atomlab.sae.ops import encode_csr
from tests.coders.cases import DEAD, gaussian, metric_of, problem, trained


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


def of_thresholds(threshold: torch.Tensor) -> tuple[ThresholdSAE, torch.Tensor]:
    x, dictionary, bias = problem(samples=101)
    sae = trained(dictionary, bias)
    with torch.no_grad():
        sae.threshold.copy_(threshold)
    return sae, x


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), target=st.floats(1.5, 15), block=st.integers(1, 120), zeros=st.booleans())
def test_one_factor_gives_the_mean_l0_to_the_single_firing(seed: int, target: float, block: int, zeros: bool) -> None:
    threshold = 0.01 + gaussian(40, seed=seed).abs()
    if zeros:
        threshold[[0, 20]] = 0  # these fire on about half of the samples, 1 in the mean
    sae, x = of_thresholds(threshold)
    factor = rescale_thresholds_(sae, x, target, block)
    torch.testing.assert_close(sae.threshold.detach(), threshold * factor, rtol=0, atol=0)
    z = sae.pre_activations(x)
    assert int((z > factor * threshold).sum()) == round(101 * target)
    assert len(encode_csr(sae, x).values()) == round(101 * target)


def test_the_factor_undoes_another_and_latents_keep_their_proportions() -> None:
    sae, x = of_thresholds(0.1 + gaussian(40).abs())
    first = rescale_thresholds_(sae, x, 4.0)
    before = sae.threshold.clone()
    with torch.no_grad():
        sae.threshold.mul_(7)
    assert rescale_thresholds_(sae, x, 4.0, block=13) == pytest.approx(1 / 7)
    torch.testing.assert_close(sae.threshold, before)
    assert first > 0


def test_the_ends_of_the_range_are_reached_and_what_lies_beyond_is_refused() -> None:
    threshold = 0.1 + gaussian(40).abs()
    threshold[20] = 0
    sae, x = of_thresholds(threshold)
    z = sae.pre_activations(x)
    always, ever = int((z[:, 20] > 0).sum()), int((z > 0).sum())
    assert not (z[:, DEAD] > 0).any()
    for target in ((always - 1) / 101, (ever + 1) / 101):
        with pytest.raises(ValueError, match="reaches from"):
            rescale_thresholds_(sae, x, target)
        assert torch.equal(sae.threshold, threshold)
    rescale_thresholds_(sae, x, always / 101)
    assert len(encode_csr(sae, x).values()) == always
    assert rescale_thresholds_(sae, x, ever / 101) == 0
    assert len(encode_csr(sae, x).values()) == ever
    with pytest.raises(ValueError, match="above 0 and below"):
        rescale_thresholds_(sae, x, 40.0)


def test_many_samples_keep_no_more_ratios_than_needed_and_lose_none() -> None:
    """Blocks with ever larger ratios, so that early ones are thrown away, and the reverse."""
    sae, _ = of_thresholds(0.1 + gaussian(40).abs())
    x = gaussian(3000, 16, seed=8) * torch.linspace(0.1, 10, 3000).double()[:, None] + sae.b_dec.detach()
    for each in (x, x.flip(0)):
        rescale_thresholds_(sae, each, 0.7, block=50)
        assert len(encode_csr(sae, each).values()) == 2100


def test_quantiles_and_one_factor_agree_where_the_quantiles_are_right_already() -> None:
    sae, x = of_thresholds(torch.ones(40))
    reached = calibrate_thresholds_(sae, x, 4.0)
    assert rescale_thresholds_(sae, x, reached) == pytest.approx(1, rel=0.05)
