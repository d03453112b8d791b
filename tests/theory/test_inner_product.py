"""theory.md 1: identities that hold for any distribution."""

import math
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.utils._python_dispatch import TorchDispatchMode

from atomlab.theory import AtomicInnerProduct, disagreement


class Decompositions(TorchDispatchMode):
    """Counts eigendecompositions."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += "eigh" in str(func)
        return func(*args, **(kwargs or {}))


def skewed(n: int, d: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator, dtype=torch.float64).exp() @ torch.randn(
        d, d, generator=generator, dtype=torch.float64
    )


def test_identities_over_all_pairs_of_the_sample_itself() -> None:
    x = skewed(300, 6)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / len(x))
    gram = metric.whiten(x) @ metric.whiten(x).T
    torch.testing.assert_close(gram.diagonal().mean(), torch.tensor(6.0, dtype=torch.float64))  # E[xᵀSx] = d
    torch.testing.assert_close(
        gram.square().mean(), torch.tensor(6.0, dtype=torch.float64)
    )  # E[(xᵀSx')²] = d, diagonal included
    torch.testing.assert_close(gram.mean(), metric.norm(x.mean(0)).square())  # x̄ᵀSx̄


def test_a_dictionary_whitened_by_itself_is_a_parseval_frame() -> None:
    dictionary = skewed(40, 6)
    white = AtomicInnerProduct.from_dictionary(dictionary).whiten(dictionary)
    torch.testing.assert_close(white.T @ white, torch.eye(6, dtype=torch.float64))


def test_cosines_are_those_of_whitened_vectors_and_of_the_definition() -> None:
    x = skewed(50, 5)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 50, shrinkage=0.1)
    u, v = x[:10], x[10:20]
    inner = torch.einsum("nd,de,ne->n", u, metric.matrix, v)
    torch.testing.assert_close(metric.inner(u, v), inner)
    torch.testing.assert_close(metric.cosine(u, v), torch.cosine_similarity(metric.whiten(u), metric.whiten(v)))
    torch.testing.assert_close(metric.whitening @ metric.unwhitening, torch.eye(5, dtype=torch.float64))


def test_both_constructors_agree_when_latents_never_fire_together() -> None:
    dictionary = skewed(12, 6)
    x = dictionary * 3.0  # one latent a sample, all with the same second moment
    data = AtomicInnerProduct.from_second_moment(x.T @ x / len(x))
    assert disagreement(data, AtomicInnerProduct.from_dictionary(dictionary)) < 1e-7
    assert disagreement(data, AtomicInnerProduct(torch.diag(torch.arange(1.0, 7)))) > 0.1


def test_disagreement_is_the_smallest_relative_distance_over_scales() -> None:
    a, b = (AtomicInnerProduct.from_dictionary(skewed(12, 5)[i : i + 7]) for i in (0, 5))
    best = minimize_scalar(lambda c: float((a.matrix - c * b.matrix).norm() / a.matrix.norm()))
    assert disagreement(a, b) == pytest.approx(best.fun, abs=1e-6)
    assert disagreement(b, a) == pytest.approx(disagreement(a, b), abs=1e-12)
    assert disagreement(a, AtomicInnerProduct(7 * a.matrix)) < 1e-7


@pytest.mark.parametrize(
    ("moment", "arguments", "words"),
    [
        (torch.diag(torch.tensor([1.0, 0.0])), {}, "rank 1 of 2"),
        (torch.eye(3), {"count": 2}, "rank 2 of 3"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), {}, "NaN"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), {}, "not symmetric"),
        (torch.eye(2), {"shrinkage": -1.0}, "negative"),
    ],
)
def test_bad_moments_are_named(moment: torch.Tensor, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AtomicInnerProduct.from_second_moment(moment, **arguments)


def test_an_ill_conditioned_metric_warns_with_its_condition_number_and_a_remedy_that_works() -> None:
    moment = torch.diag(torch.tensor([1e8, 1.0, 1.0], dtype=torch.float64))
    with pytest.warns(UserWarning, match="condition number 1e"):
        AtomicInnerProduct.from_second_moment(moment)
    assert AtomicInnerProduct.from_second_moment(moment, shrinkage=3e-6).condition_number < 1.1e6


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_float32_is_right_to_the_root_of_the_condition_number_below_the_warning(condition: float) -> None:
    """‖W‖‖W⁻¹‖ = √cond, and the error of Wx is at most that times √d·ε of ‖Wx‖: so for its cosines, twice."""
    d = 24
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, math.log10(condition), d, dtype=torch.float64)
    metric = AtomicInnerProduct((rotation * values) @ rotation.T)
    u, v = torch.randn(2, 200, d, generator=generator)
    exact = metric.cosine(u.double(), v.double())
    bound = 2 * condition**0.5 * (d + 2) * 2.0**-24
    assert (metric.cosine(u, v).double() - exact).abs().max() <= bound


def test_a_metric_from_moments_is_decomposed_once_and_is_the_one_from_its_matrix() -> None:
    """faults.md D10: the inverse of C has C's eigenvectors, and was decomposed again to find them."""
    x = torch.randn(200, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    second = x.T @ x / len(x)
    with Decompositions() as counted:
        found = AtomicInnerProduct.from_second_moment(second, shrinkage=0.1)
    assert counted.number == 1
    inverse = torch.linalg.inv(second + 0.1 * second.trace() / 12 * torch.eye(12, dtype=torch.float64))
    again = AtomicInnerProduct(found.matrix)
    torch.testing.assert_close(found.matrix, inverse)
    torch.testing.assert_close(found.whitening, again.whitening)
    torch.testing.assert_close(found.unwhitening, again.unwhitening)
    torch.testing.assert_close(found.whitening @ found.unwhitening, torch.eye(12, dtype=torch.float64))
    assert found.condition_number == pytest.approx(again.condition_number)


def test_moments_of_zeros_give_no_metric() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        AtomicInnerProduct.from_second_moment(torch.zeros(3, 3), shrinkage=0.1)
