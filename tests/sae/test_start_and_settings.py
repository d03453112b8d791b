"""What a TSAE starts from, what it refuses, and what a TSAE made from another one keeps."""

import pytest
import torch

from atomlab.sae import InputTransform, ThresholdSAE


def test_a_tsae_starts_from_unit_atoms_and_their_transpose() -> None:
    torch.manual_seed(0)
    sae = ThresholdSAE(7, 12)
    torch.testing.assert_close(sae.W_dec.square().sum(1), torch.ones(12))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert not sae.b_enc.any()
    assert not sae.b_dec.any()
    assert (sae.threshold == 0.001).all()
    with torch.no_grad():
        sae.W_dec.zero_()
    assert sae.W_enc.any()  # a parameter of its own


@pytest.mark.parametrize("bandwidth", [0.0, -0.1])
def test_a_window_without_width_is_refused(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=f"bandwidth={bandwidth}"):
        ThresholdSAE(3, 4, bandwidth=bandwidth)


def test_with_unit_norm_decoder_keeps_how_the_thresholds_are_trained() -> None:
    """At equal weights the gradients are equal, and in the window they depend on the bandwidth and on ste_to_input."""
    torch.manual_seed(0)
    sae, x = ThresholdSAE(5, 9, bandwidth=0.7, ste_to_input=True), torch.randn(40, 5)
    with torch.no_grad():
        sae.threshold.fill_(0.4)
    same = sae.with_unit_norm_decoder()
    torch.testing.assert_close(same.W_dec, sae.W_dec)
    for each in (sae, same):
        each(x).square().sum().backward()
    torch.testing.assert_close(same.threshold.grad, sae.threshold.grad)
    torch.testing.assert_close(same.b_enc.grad, sae.b_enc.grad)


def test_the_identity_changes_nothing() -> None:
    x = torch.randn(6, 5)
    transform = InputTransform.identity(5)
    assert torch.equal(transform(x), x)
    assert torch.equal(transform.restore(x), x)
