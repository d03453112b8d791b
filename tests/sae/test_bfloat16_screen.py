"""The screened encoder returns every entry that float32 dot products put above the threshold, also where the screen
errs most."""

import pytest
import torch
from torch import Tensor

from atomlab.sae import ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import TorchKernels, bfloat16_screen, torch_kernels
from atomlab.sae.sparse_code import Entries


def all_pairs(batch: int, d_sae: int) -> Entries:
    columns = torch.arange(d_sae).repeat_interleave(batch)
    return Entries(torch.arange(batch).repeat(d_sae), columns, batch, d_sae)


def assert_exact(x: Tensor, atoms: Tensor, bias: Tensor, threshold: Tensor, bandwidth: float) -> int:
    """Support and bits of z equal those of float32 dot products over every pair; returns how many entries there are."""
    pairs = all_pairs(len(x), len(atoms))
    z = torch_kernels.sampled_dot(x, atoms, pairs) + bias[pairs.columns]
    theta = threshold[pairs.columns]
    kept = (z > theta) | ((z - theta).abs() < bandwidth / 2)
    found, entries = TorchKernels(True).find(x, atoms, bias, threshold, bandwidth)
    assert torch.equal(entries.columns, pairs.columns[kept])
    assert torch.equal(entries.rows, pairs.rows[kept])
    assert torch.equal(found, z[kept])
    return len(found)


@pytest.mark.parametrize("d_in", [1, 7, 64, 768])
@pytest.mark.parametrize("ulps", [-1, 0, 1])
@pytest.mark.parametrize("bandwidth", [0.0, 0.02])
def test_thresholds_on_the_very_values_and_one_unit_beside_them(d_in: int, ulps: int, bandwidth: float) -> None:
    """The threshold of a latent is its z on one sample, or that number's neighbour in float32; norms of samples span
    six decades."""
    generator = torch.Generator().manual_seed(d_in)
    x = torch.randn(80, d_in, generator=generator) * torch.logspace(-3, 3, 80)[:, None]
    atoms = torch.randn(96, d_in, generator=generator) * torch.logspace(3, -3, 96)[:, None].sqrt()
    bias = torch.randn(96, generator=generator)
    latents = torch.arange(96)
    atoms *= torch.where((x[latents % 80] * atoms).sum(1) < 0, -1.0, 1.0)[:, None]
    z = torch_kernels.sampled_dot(x, atoms, Entries(latents % 80, latents, 80, 96)) + bias
    threshold = torch.nextafter(z, torch.full_like(z, torch.inf * ulps)) if ulps else z
    assert assert_exact(x, atoms, bias, threshold.clamp(min=0), bandwidth) > 0


def worst_case(d_in: int) -> tuple[Tensor, Tensor]:
    """Coordinates just below the middle between two bfloat16 numbers: every rounding is downwards and as large as it
    can be."""
    v = torch.full((1, d_in), 1 + 2.0**-8 - 2.0**-20)
    assert (v.bfloat16().float() < v).all()
    return v, v.clone()


@pytest.mark.parametrize("d_in", [16, 256, 4096])
def test_where_the_margin_is_attained(d_in: int) -> None:
    """x̂·ŵ misses the threshold by the whole of ‖x − x̂‖‖ŵ‖ + ‖x‖‖w − ŵ‖; a screen without that margin misses the
    entry."""
    x, w = worst_case(d_in)
    z = torch_kernels.sampled_dot(x, w, all_pairs(1, 1))
    below = torch.nextafter(z, torch.zeros_like(z))
    assert assert_exact(x, w, torch.zeros(1), below, 0.0) == 1
    assert assert_exact(x, w, torch.zeros(1), z, 0.0) == 0
    assert float(x.bfloat16() @ w.bfloat16().T) < float(below)
    low_x, low_w = x.bfloat16().float(), w.bfloat16().float()
    margin = (x - low_x).norm() * low_w.norm() + x.norm() * (w - low_w).norm()
    lost = float((x.double() * w.double()).sum() - (low_x.double() * low_w.double()).sum())
    assert lost == pytest.approx(float(margin), rel=1e-4)  # Cauchy–Schwarz with equality


def test_few_candidates_are_recomputed_in_vain() -> None:
    """On Gaussian data the margin is a small part of the pre-activations' spread: fewer than twice as many candidates
    as entries."""
    torch.manual_seed(0)
    sae, x = ThresholdSAE(256, 1024), torch.randn(512, 256) / 16
    calibrate_thresholds_(sae, x, 10.0)
    threshold, atoms = sae.threshold.detach(), sae.W_dec.detach()
    found = bfloat16_screen.candidates(x, atoms, threshold)
    entries = int((x @ atoms.T > threshold).sum())
    assert entries <= len(found.rows) < 2 * entries


def test_more_coordinates_than_the_proof_covers_are_refused() -> None:
    wide = torch.zeros(1, bfloat16_screen.WIDEST + 1)
    assert not bfloat16_screen.pays(wide, wide.T)
    with pytest.raises(ValueError, match="16385"):
        bfloat16_screen.candidates(wide, wide, torch.zeros(1))
