"""The refit against SciPy on each support, in a metric, and against the code it refits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from atomlab.coders import refit
from atomlab.sae.ops import encode_csr
from tests.coders.cases import DEAD, check_csr, gaussian, metric_of, problem, squared_errors, trained


@pytest.mark.parametrize("in_metric", [False, True])
def test_each_vector_has_the_solution_of_scipy_on_its_support(in_metric: bool) -> None:
    x, dictionary, bias = problem()
    metric = metric_of(16) if in_metric else None
    own = encode_csr(trained(dictionary, bias, metric), x)
    codes = refit(x - bias, dictionary, own, metric)
    check_csr(codes, own.shape, torch.float64)
    root = torch.linalg.cholesky(metric.matrix) if metric else torch.eye(16).double()  # any root of S gives its norm
    for i in range(len(x)):
        chosen = own[i].to_dense().nonzero().squeeze(1)
        expected = torch.zeros(40, dtype=torch.float64)
        if len(chosen):
            expected[chosen] = torch.from_numpy(
                nnls((dictionary[chosen] @ root).T.numpy(), ((x - bias)[i] @ root).numpy())[0]
            )
        torch.testing.assert_close(codes[i].to_dense(), expected, rtol=1e-7, atol=1e-9)
    assert not codes.to_dense()[:, DEAD].any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.floats(0.1, 3), in_metric=st.booleans())
def test_no_vector_is_reconstructed_worse_than_by_the_code_that_is_refitted(
    seed: int, level: float, in_metric: bool
) -> None:
    x, dictionary, bias = problem(seed=seed)
    metric = metric_of(16) if in_metric else None
    own = encode_csr(trained(dictionary, bias, metric, level), x)
    codes = refit(x - bias, dictionary, own, metric)
    before, after = (squared_errors(x - bias, dictionary, each, metric) for each in (own, codes))
    size = squared_errors(x - bias, dictionary, own * 0, metric)
    assert (after <= before + 1e-9 * size).all()
    assert (after <= size * (1 + 1e-12)).all()


def test_a_metric_is_whitening_of_vectors_and_atoms() -> None:
    x, dictionary, bias = problem()
    metric = metric_of(16)
    own = encode_csr(trained(dictionary, bias), x)
    codes = refit(x - bias, dictionary, own, metric)
    white = refit(metric.whiten(x - bias), metric.whiten(dictionary), own)
    torch.testing.assert_close(codes.to_dense(), white.to_dense(), rtol=1e-8, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permuted_and_scaled_atoms_have_permuted_and_divided_values(seed: int) -> None:
    x, dictionary, bias = problem(seed=seed)
    own = encode_csr(trained(dictionary, bias), x)
    order, scale = gaussian(40, seed=seed).argsort(), torch.logspace(2, -2, 40).double()
    codes = refit(x - bias, dictionary, own).to_dense()
    moved = refit(x - bias, (dictionary * scale[:, None])[order], own.to_dense()[:, order])
    check_csr(moved, (60, 40), torch.float64)
    torch.testing.assert_close(moved.to_dense(), (codes / scale)[:, order], rtol=1e-7, atol=1e-10)


def test_zero_and_double_atoms_and_empty_supports_are_fine() -> None:
    x, dictionary, bias = problem()
    dictionary[3], dictionary[20] = 0, 2 * dictionary[10]
    y = x - bias
    own = torch.zeros(60, 40, dtype=torch.float64)
    own[::2, [3, 10, 20, 30]] = 1
    codes = refit(y, dictionary, own)
    check_csr(codes, (60, 40), torch.float64)
    assert not codes.to_dense()[:, 3].any()
    assert not codes.to_dense()[1::2].any()
    for i in range(0, 60, 2):
        residual = nnls(dictionary[[10, 30]].T.numpy(), y[i].numpy())[1]
        assert float((y[i] - codes[i].to_dense() @ dictionary).norm()) == pytest.approx(residual, rel=1e-9)
    assert refit(y[:0], dictionary, own[:0]).shape == (0, 40)


def test_results_have_the_dtype_of_the_vectors_also_under_autocast() -> None:
    x, dictionary, bias = problem()
    own, y = encode_csr(trained(dictionary, bias), x), x - bias
    exact = refit(y.bfloat16().double(), dictionary, own).to_dense()
    with torch.autocast("cpu", torch.bfloat16):
        codes = refit(y.bfloat16(), dictionary, own)
    check_csr(codes, (60, 40), torch.float32)
    np.testing.assert_allclose(codes.to_dense().numpy(), exact.numpy(), rtol=1e-3, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    x, dictionary, bias = problem()
    own = encode_csr(trained(dictionary, bias), x)
    with pytest.raises(ValueError, match="60 codes"):
        refit(x[:5], dictionary, own)
    with pytest.raises(ValueError, match="width 8"):
        refit(x, dictionary, own, metric_of(8))
    dictionary[2, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        refit(x, dictionary, own)
