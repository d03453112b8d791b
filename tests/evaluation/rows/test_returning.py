"""Atoms that come back, on dictionaries of which it is known which do."""

import pytest
import torch

from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.returning import returning
from atomlab.report import Row
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, subspace_energy

D = 8
EUCLIDEAN = AtomicInnerProduct(torch.eye(D, dtype=torch.float64))


def orthonormal(columns: torch.Tensor | None = None) -> ThresholdSAE:
    """A TSAE of orthonormal atoms with an exact encoder; `columns` are its atoms instead of the axes."""
    sae = ThresholdSAE(D, D).requires_grad_(False)
    atoms = torch.eye(D) if columns is None else columns
    sae.load_state_dict(
        {
            "W_enc": atoms.T, "b_enc": torch.zeros(D), "W_dec": atoms, "b_dec": torch.zeros(D),
            "threshold": torch.full((D,), 0.01),
        }
    )  # fmt: skip
    return sae


def turned(pairs: int) -> torch.Tensor:
    """The axes, of which the first `pairs` pairs are turned by 45° within their plane: cosine .707, the same span."""
    rows = torch.eye(D)
    for i in range(pairs):
        plane = rows[2 * i : 2 * i + 2].clone()
        rows[2 * i], rows[2 * i + 1] = (plane[0] + 1.05 * plane[1]) / 1.45, (plane[1] - 1.05 * plane[0]) / 1.45
    return rows


def found(others: list[ThresholdSAE], *, shared: bool = False) -> Row:
    x = torch.rand(400, D, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, D)
    return returning(orthonormal(), others, HeldOut.independent(x), EUCLIDEAN, batch=64, seed=0, shared_start=shared)


def test_permuted_atoms_all_come_back_and_carry_everything() -> None:
    row = found([orthonormal(torch.eye(D).roll(3, 0)), orthonormal(torch.eye(D).flip(0))])
    assert (row["consistency"], row["consistency_share"], row["stable"]) == pytest.approx((1, 1, 1))
    assert row["r2_of_stable"] == pytest.approx(row["r2_seeds"]["value"]) == pytest.approx(1, abs=1e-3)
    assert row["matched_cosines"] == pytest.approx([1.0] * D)
    assert row["samples_seeds"] == 2
    assert row["consistency_random"] < 0.9


def test_atoms_that_turn_within_a_plane_do_not_come_back_but_their_span_does() -> None:
    row = found([orthonormal(turned(2))])
    assert row["matched_cosines"] == pytest.approx([1 / 1.45] * 4 + [1.0] * 4, rel=1e-6)
    assert (row["consistency_share"], row["stable"]) == (0.5, 0.5)
    assert row["consistency_subspace"] == pytest.approx(1)
    x = torch.rand(400, D, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, D)
    kept = x.clone()
    kept[:, :4] = 0
    expected = 1 - (x - kept).double().square().sum() / (x - x.mean(0)).double().square().sum()
    assert row["r2_of_stable"] == pytest.approx(float(expected), abs=2e-3)


def test_an_atom_is_stable_if_it_came_back_in_more_than_half_of_the_runs() -> None:
    same, other = orthonormal(), orthonormal(turned(4))
    assert found([same, other])["stable"] == 0.0
    assert found([same, same, other])["stable"] == 1.0
    row = found([same, same, other])
    assert row["consistency_share"] == pytest.approx(2 / 3)
    assert row["consistency_share_runs"] == pytest.approx({"value": 2 / 3, "low": 0, "high": 1})


def test_a_shared_start_has_names_of_its_own() -> None:
    row = found([orthonormal()], shared=True)
    assert "consistency" not in row
    assert row["consistency_shared_start"] == pytest.approx(1)
    assert found([]) == {}


def test_energy_in_a_span_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(9, D, generator=generator), torch.randn(30, D, generator=generator)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64)
    s = AtomicInnerProduct(root @ root.T + torch.eye(D))
    energy = subspace_energy(a, b, s, nearest=3)
    for atom, value in zip(a.double(), energy, strict=True):
        cosines = torch.stack([s.cosine(atom, other).abs() for other in b.double()])
        near = s.whiten(b.double()[cosines.topk(3).indices])
        target = s.whiten(atom[None])[0]
        fitted = near.T @ torch.linalg.lstsq(near.T, target[:, None]).solution
        assert float(value) == pytest.approx(float(fitted.square().sum() / target.square().sum()), rel=1e-6)
    torch.testing.assert_close(subspace_energy(b[:4], b, s), torch.ones(4).double())
    assert subspace_energy(a, torch.cat([b[:1], b[:1]]), s).max() < 1  # twins span a line
