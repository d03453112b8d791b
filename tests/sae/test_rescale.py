"""One factor on all thresholds: the mean L0 that was asked for, whatever the blocks, and an error where none gives it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.sae import ThresholdSAE, rescale_thresholds_


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
