"""Random TSAEs and batches with edge cases in them, and the comparison of an implementation with the reference."""

import torch
from torch import Tensor

from atomlab.sae import L0, Sparsity, Tanh, TargetL0, ThresholdSAE
from atomlab.sae.ops import Dense, Operators, Terms, objective

LOSSES = [None, L0(0.3), TargetL0(2.0, 3.0), Tanh(0.5, 2.0)]
BANDWIDTH = 0.5  # so wide that the window holds many entries below θ


def case(
    batch: int, d_in: int, d_sae: int, seed: int, *, dtype: torch.dtype = torch.float64, **arguments: bool
) -> tuple[ThresholdSAE, Tensor]:
    """A TSAE with random parameters, and a random batch.

    Latent 0 never fires and the last one always does. The first sample is the centre of the encoder, where z = b_enc.
    """
    generator = torch.Generator().manual_seed(seed)
    sae = ThresholdSAE(d_in, d_sae, bandwidth=BANDWIDTH, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
        sae.threshold.abs_()
        sae.b_enc[0], sae.threshold[0] = -1e3, 5.0
        sae.b_enc[-1] = 1e3
    x = torch.randn(batch, d_in, generator=generator, dtype=dtype)
    x[0] = sae.b_dec.detach() if sae.apply_b_dec_to_input else 0
    return sae, x


def assert_is_dense(operators: Operators, sae: ThresholdSAE, x: Tensor, sparsity: Sparsity | None) -> None:
    """Compares loss, gradients and firings with those of the dense reference.

    In float64 no product of random numbers ties with a threshold. Sums are of at most 1e5 products of size up to 1e6.
    """
    expected, wanted = gradients(Dense(), sae, x, sparsity)
    terms, found = gradients(operators, sae, x, sparsity)
    torch.testing.assert_close(terms.loss, expected.loss, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(terms.sparsity, expected.sparsity, rtol=1e-11, atol=1e-11)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))
    assert torch.equal(terms.code.firings(), expected.code.firings())


def gradients(
    operators: Operators, sae: ThresholdSAE, x: Tensor, sparsity: Sparsity | None
) -> tuple[Terms, list[Tensor]]:
    """The terms and the gradients of all parameters, where every third latent, but not latent 0, counts as dead."""
    sae.zero_grad()
    dead = torch.arange(sae.d_sae, device=x.device) % 3 == 1
    terms = objective(operators, sae, x, sparsity, dead, 0.7)
    terms.loss.backward()
    assert all(p.grad is not None for p in sae.parameters())
    return terms, [p.grad for p in sae.parameters() if p.grad is not None]
