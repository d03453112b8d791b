"""Biases that are much larger than the products: z is rounded coarsely, and no entry may be lost before that."""

import pytest
import torch

from atomlab.sae.ops import TorchKernels


@pytest.mark.parametrize("screened", [False, True])
@pytest.mark.parametrize("bandwidth", [0.0, 1e-3])
def test_find_decides_on_the_rounded_pre_activation(screened: bool, bandwidth: float) -> None:
    """d_in = 1 and atoms of 1, so that products are exact; z = x + b has steps of 2⁻¹⁷ to 2⁻¹⁴ around θ − ε/2 and θ."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.linspace(70, 1000, 37)
    threshold = bias + 0.1
    x = torch.cat([0.1 - edge / 2 + 4e-4 * torch.rand(400, 1, generator=generator) - 2e-4 for edge in (0.0, bandwidth)])
    z = x + bias
    kept = (z > threshold) | ((z - threshold).abs() < bandwidth / 2)
    found, entries = TorchKernels(screened).find(x, torch.ones(37, 1), bias, threshold, bandwidth)
    columns, rows = kept.T.nonzero(as_tuple=True)
    assert torch.equal(entries.columns, columns)
    assert torch.equal(entries.rows, rows)
    assert torch.equal(found, z[rows, columns])
    assert 0 < len(found) < z.numel()
