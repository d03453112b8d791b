"""One factor on all thresholds: the mean L0 that was asked for, whatever the blocks, and an error where none gives it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.sae import ThresholdSAE, calibrate_thresholds_, rescale_thresholds_
from atomlab.sae.ops import encode_csr
from tests.coders.cases import DEAD, gaussian, problem, trained


def made(seed: int, samples: int = 211) -> tuple[ThresholdSAE, torch.Tensor]:
    """Thresholds, biases and norms that all differ, and vectors of very unequal norms."""
    generator = torch.Generator().manual_seed(seed)
    sae = ThresholdSAE(7, 30, tied=False)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.threshold.abs_().add_(0.01)
    scales = torch.logspace(-1, 1, samples)[torch.randperm(samples, generator=generator)]
    return sae.double(), (torch.randn(samples, 7, generator=generator) * scales[:, None]).double()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), target=st.floats(0.2, 9), block=st.sampled_from([1, 13, 1024]))
def test_the_mean_l0_is_the_target_to_one_firing_in_all(seed: int, target: float, block: int) -> None:
    sae, x = made(seed)
    before = sae.threshold.clone()
    factor = rescale_thresholds_(sae, x, target, block=block)
    torch.testing.assert_close(sae.threshold.detach(), before * factor, rtol=1e-12, atol=0)
    assert int((sae.encode(x) > 0).sum()) in range(round(target * len(x)) - 1, round(target * len(x)) + 2)


def test_vectors_of_which_few_hold_all_firings_are_searched_again() -> None:
    """Blocks of one sample each, all of whose firings lie in one sample: the first search keeps too few of its ratios."""
    sae = ThresholdSAE(1, 40, tied=False).double()
    with torch.no_grad():
        sae.W_enc.copy_(torch.linspace(1, 2, 40))
        sae.threshold.fill_(1.0)
    x = torch.tensor([[100.0], *[[0.001]] * 19], dtype=torch.float64)
    rescale_thresholds_(sae, x, 1.5, block=1)  # thirty firings, all of the first sample
    assert (sae.encode(x) > 0).sum(1).tolist() == [30] + [0] * 19


def test_a_target_that_no_factor_reaches_is_an_error_that_changes_nothing() -> None:
    sae, x = made(0)
    before = sae.threshold.clone()
    with pytest.raises(ValueError, match="No factor of the thresholds gives"):
        rescale_thresholds_(sae, x, 29.5)
    with torch.no_grad():
        sae.threshold[:20] = 0
    with pytest.raises(ValueError, match="No factor of the thresholds gives"):
        rescale_thresholds_(sae, x, 1.0)  # the latents without a threshold fire more often
    with pytest.raises(ValueError, match="above 0 and below d_sae=30"):
        rescale_thresholds_(sae, x, 30.0)
    assert torch.equal(sae.threshold[20:], before[20:])


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


@torch.no_grad()
def test_calibrated_thresholds_lie_halfway_between_two_samples_and_choose_what_the_quantile_chose() -> None:
    torch.manual_seed(0)
    sae, x = ThresholdSAE(6, 40).double(), torch.randn(301, 6, dtype=torch.float64)
    sae.b_enc[3] = -100.0  # fires nowhere
    reached = calibrate_thresholds_(sae, x, 7.0, block=13)
    z = sae.pre_activations(x)
    quantile = z.sort(0).values[round(301 * (1 - 7.0 / 40)) - 1].clamp(min=0)
    assert torch.equal(z > sae.threshold, z > quantile)
    assert reached == float((z > quantile).sum()) / 301
    above = torch.where(z > sae.threshold, z, torch.inf).amin(0) - sae.threshold
    below = sae.threshold - torch.where(z < sae.threshold, z, -torch.inf).amax(0)
    free = sae.threshold > 0
    assert 30 < free.sum() < 40
    torch.testing.assert_close(above[free], below[free], rtol=1e-9, atol=0)
    assert sae.threshold[3] == 0


@torch.no_grad()
def test_a_calibration_without_a_next_sample_leaves_no_sample_on_the_threshold() -> None:
    """So few firings are asked for that the threshold lies above all samples; a latent whose samples are equal keeps them."""
    sae = ThresholdSAE(2, 3, tied=False).double()
    sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    sae.b_enc.copy_(torch.tensor([0.0, 0.0, 5.0]))
    x = torch.tensor([[1.0, -1.0], [3.0, -2.0], [2.0, -4.0]], dtype=torch.float64)
    assert calibrate_thresholds_(sae, x, 0.1) == 0
    assert sae.threshold.tolist() == [3.5, 0.0, 5.0]
