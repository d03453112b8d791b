"""Non-negative least squares against SciPy's, and against the conditions that define its solution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from atomlab.coders import nonnegative_least_squares


def problems(seed: int, k: int, d: int, special: str, samples: int = 12) -> tuple[torch.Tensor, ...]:
    """Atoms (samples, k, d), vectors (samples, d) and a mask of unequal supports; some supports are empty."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(samples, k, d, generator=generator, dtype=torch.float64)
    atoms = atoms + torch.rand(samples, 1, 1, generator=generator) * 3  # coherent atoms: many values are 0
    y = torch.randn(samples, d, generator=generator, dtype=torch.float64) + 1
    if special == "twins" and k > 1:
        atoms[:, k // 2 :] = atoms[:, : k - k // 2] * 2
    if special == "zeros":
        atoms[:, k // 2] = 0
    mask = torch.rand(samples, k, generator=generator) < torch.rand(samples, 1, generator=generator) * 1.3
    return atoms, y, mask


def solve(atoms: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return nonnegative_least_squares(atoms @ atoms.mT, (atoms @ y[:, :, None]).squeeze(2), mask)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 14),
    d=st.integers(1, 20),
    special=st.sampled_from(["", "twins", "zeros"]),
)
def test_reconstructions_are_those_of_scipy(seed: int, k: int, d: int, special: str) -> None:
    atoms, y, mask = problems(seed, k, d, special)
    values = solve(atoms, y, mask)
    assert (values >= 0).all()
    assert not values[~mask].any()
    for i in range(len(y)):
        expected, residual = np.zeros(k), float(y[i].norm())
        chosen = mask[i].numpy()
        if chosen.any():
            expected[chosen], residual = nnls(atoms[i].numpy()[chosen].T, y[i].numpy())
        error = y[i] - values[i] @ atoms[i]
        assert float(error.norm()) == pytest.approx(residual, rel=1e-6, abs=1e-7)
        fit = torch.from_numpy(expected) @ atoms[i]
        torch.testing.assert_close(values[i] @ atoms[i], fit, rtol=1e-5, atol=1e-5)
        if special == "" and 2 * chosen.sum() <= d:  # well-conditioned, so that the values too are unique
            torch.testing.assert_close(values[i], torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 30))
def test_the_conditions_of_the_optimum_hold(seed: int, k: int) -> None:
    atoms, y, mask = problems(seed, k, 40, "")
    values = solve(atoms, y, mask)
    gradient = ((values[:, None] @ atoms).squeeze(1) - y)[:, None] @ atoms.mT
    gradient = gradient.squeeze(1)
    scale = atoms.norm(dim=2) * y.norm(dim=1, keepdim=True)
    assert (gradient >= -1e-10 * scale)[mask].all()
    assert (gradient.abs() <= 1e-10 * scale)[values > 0].all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 20))
def test_permuting_and_scaling_atoms_permutes_and_divides_the_values(seed: int, k: int) -> None:
    atoms, y, mask = problems(seed, k, 30, "")
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    scale = torch.logspace(-3, 3, k).double()[:, None]
    values = solve((atoms * scale)[:, order], y, mask[:, order])
    torch.testing.assert_close(values, (solve(atoms, y, mask) / scale.T)[:, order], rtol=1e-7, atol=1e-12)


def test_pivoting_in_blocks_that_would_cycle_ends_at_the_optimum() -> None:
    """Vectors near the border of the cone of strongly correlated atoms, where exchanges of all indices go to and fro."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(4000, 10, 10, generator=generator, dtype=torch.float64)
    atoms = mixing * torch.logspace(0, -3, 10).double()  # condition number about 1e6 in the Gram matrices
    y = torch.randn(4000, 10, generator=generator, dtype=torch.float64)
    values = solve(atoms, y, torch.ones(4000, 10, dtype=torch.bool))
    expected = torch.tensor(np.array([nnls(a.T, v)[0] for a, v in zip(atoms.numpy(), y.numpy(), strict=True)]))
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_more_atoms_than_dimensions_reach_the_residual_of_scipy() -> None:
    atoms, y, _ = problems(3, 25, 6, "", samples=200)
    values = solve(atoms, y, torch.ones(200, 25, dtype=torch.bool))
    for i in range(200):
        residual = nnls(atoms[i].numpy().T, y[i].numpy())[1]
        assert float((y[i] - values[i] @ atoms[i]).norm()) == pytest.approx(residual, abs=1e-6)


def test_no_samples_and_empty_supports_have_no_values() -> None:
    empty = torch.zeros(0, 3, 3), torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)
    assert nonnegative_least_squares(*empty).shape == (0, 3)
    assert not nonnegative_least_squares(
        torch.eye(3)[None], torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)
    ).any()
