"""A unit whose codes are known: what the tests of the browser search for firings."""

import torch

from atomlab.units import Unit


def unit(d_in: int, d_sae: int = 10, offset: float = 1.0) -> Unit:
    """Codes are max(0, W x − offset), with W at random; atom 4 never fires."""
    weights = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(0))
    weights[4] = 0
    return Unit(
        "test",
        weights,
        torch.zeros(d_in),
        lambda x: (x @ weights.T - offset).clamp(min=0),
        signed=False,
        coder="one-step",
    )
