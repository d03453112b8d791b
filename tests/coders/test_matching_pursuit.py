"""Both pursuits against slow ones: SciPy's non-negative least squares in a loop, and theory's own with dense codes."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from atomlab.coders import nonnegative_omp, omp
from atomlab.theory import orthogonal_matching_pursuit
from tests.coders.cases import check_csr, gaussian, metric_of, problem


def slow(y: torch.Tensor, dictionary: torch.Tensor, k: int, root: torch.Tensor) -> torch.Tensor:
    codes = torch.zeros(len(y), len(dictionary), dtype=torch.float64)
    atoms = dictionary @ root
    unit = atoms / atoms.norm(dim=1, keepdim=True)
    for i, target in enumerate(y @ root):
        chosen: list[int] = []
        residual = target
        for _ in range(k):
            scores = unit @ residual
            scores[chosen] = -torch.inf
            if scores.max() <= 1e-12 * target.norm():
                break
            chosen.append(int(scores.argmax()))
            values = torch.from_numpy(nnls(atoms[chosen].T.numpy(), target.numpy())[0])
            residual = target - values @ atoms[chosen]
            codes[i] = 0
            codes[i, chosen] = values
    return codes


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 20), in_metric=st.booleans(), block=st.integers(3, 30))
def test_the_non_negative_pursuit_is_the_slow_one(seed: int, k: int, in_metric: bool, block: int) -> None:
    x, dictionary, bias = problem(samples=25, d_sae=30, d_in=12, seed=seed)
    metric = metric_of(12) if in_metric else None
    root = torch.linalg.cholesky(metric.matrix) if metric else torch.eye(12).double()
    codes = nonnegative_omp(x - bias, dictionary, k, metric, block=block)
    check_csr(codes, (25, 30), torch.float64)
    expected = slow(x - bias, dictionary, k, root)
    torch.testing.assert_close(codes.to_dense() @ dictionary, expected @ dictionary, rtol=1e-6, atol=1e-7)
    if k <= 12:  # of more atoms than dimensions several solutions may reconstruct alike
        torch.testing.assert_close(codes.to_dense(), expected, rtol=1e-6, atol=1e-8)


def test_scaled_and_permuted_atoms_have_divided_and_permuted_values() -> None:
    x, dictionary, bias = problem()
    order, scale = gaussian(40, seed=9).argsort(), torch.logspace(2, -2, 40).double()
    codes = nonnegative_omp(x - bias, dictionary, 6).to_dense()
    moved = nonnegative_omp(x - bias, (dictionary * scale[:, None])[order], 6).to_dense()
    torch.testing.assert_close(moved, (codes / scale)[:, order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("in_metric", [False, True])
def test_a_vector_that_few_atoms_make_has_the_code_that_made_it_and_no_rounding(
    dtype: torch.dtype, in_metric: bool
) -> None:
    metric = metric_of(32) if in_metric else None
    dictionary = torch.linalg.qr(gaussian(32, 32))[0]
    dictionary = dictionary @ metric.unwhitening if metric else dictionary
    dictionary = dictionary * torch.logspace(-2, 2, 32).double()[:, None]
    chosen = gaussian(50, 32, seed=3).argsort(1)[:, :3]
    values = (1 + gaussian(50, 3, seed=4).abs()) / torch.logspace(-2, 2, 32).double()[chosen]
    made = torch.zeros(50, 32, dtype=torch.float64).scatter_(1, chosen, values)
    codes = nonnegative_omp((made @ dictionary).to(dtype), dictionary.to(dtype), 20, metric)
    check_csr(codes, (50, 32), dtype)
    assert torch.equal(codes.to_dense() != 0, made != 0)
    torch.testing.assert_close(codes.to_dense().double(), made, rtol=2000 * torch.finfo(dtype).eps, atol=0)
    assert not nonnegative_omp(torch.zeros(2, 32, dtype=dtype), dictionary.to(dtype), 5, metric).values().numel()


def test_a_pursuit_stops_where_it_has_the_vector_exactly_however_coherent_the_atoms() -> None:
    """What is left of a residual is the rounding error of a system with condition number 1e8 (Gram matrices)."""
    dictionary = (gaussian(60, 8, seed=1).abs() * torch.logspace(0, -4, 8).double()) @ torch.linalg.qr(gaussian(8, 8))[
        0
    ]
    y = gaussian(200, 60, seed=2).abs() @ dictionary
    codes = [nonnegative_omp(y, dictionary, k) for k in (30, 60)]
    exact = (y - codes[0].to_dense() @ dictionary).norm(dim=1) < 1e-13 * y.norm(dim=1)
    assert exact.double().mean() > 0.5
    torch.testing.assert_close(codes[0].to_dense()[exact], codes[1].to_dense()[exact], rtol=0, atol=0)


def test_a_vector_opposite_to_all_atoms_has_no_code_and_zero_atoms_are_never_taken() -> None:
    dictionary = torch.eye(6, dtype=torch.float64)
    dictionary[2] = 0
    codes = nonnegative_omp(torch.stack([-torch.ones(6), torch.ones(6)]).double(), dictionary, 6)
    assert codes.to_dense().tolist() == [[0] * 6, [1, 1, 0, 1, 1, 1]]


def test_more_steps_never_make_the_residual_larger() -> None:
    x, dictionary, bias = problem()
    errors = [
        (x - bias - nonnegative_omp(x - bias, dictionary, k).to_dense() @ dictionary).norm(dim=1) for k in range(1, 12)
    ]
    assert all((b <= a * (1 + 1e-12)).all() for a, b in pairwise(errors))


@pytest.mark.parametrize("in_metric", [False, True])
def test_the_signed_pursuit_is_that_of_theory_as_csr(in_metric: bool) -> None:
    x, dictionary, bias = problem()
    metric = metric_of(16) if in_metric else None
    codes = omp(x - bias, dictionary, 5, metric, block=7)
    check_csr(codes, (60, 40), torch.float64)
    expected = orthogonal_matching_pursuit(x - bias, dictionary, 5, metric)
    torch.testing.assert_close(codes.to_dense(), expected)
    assert (codes.values() < 0).any()


def test_a_number_of_steps_out_of_range_is_refused() -> None:
    x, dictionary, _ = problem()
    with pytest.raises(ValueError, match="K=41"):
        nonnegative_omp(x, dictionary, 41)
    with pytest.raises(ValueError, match="K=0"):
        nonnegative_omp(x, dictionary, 0)
