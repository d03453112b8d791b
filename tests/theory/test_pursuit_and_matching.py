"""Orthogonal matching pursuit against scikit-learn's; matching against brute force."""

import math
from itertools import permutations

import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from atomlab.theory import AtomicInnerProduct, match_atoms, mean_matched_cosine, orthogonal_matching_pursuit


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_pursuit_equals_scikit_learns(k: int) -> None:
    x, dictionary = gaussian(40, 10), torch.nn.functional.normalize(gaussian(30, 10, seed=1), dim=1)
    expected = torch.from_numpy(orthogonal_mp(dictionary.T.numpy(), x.T.numpy(), n_nonzero_coefs=k)).T
    torch.testing.assert_close(orthogonal_matching_pursuit(x, dictionary, k, block=7), expected)


def test_pursuit_in_a_metric_is_pursuit_of_whitened_vectors_and_norms_do_not_matter() -> None:
    x, dictionary = gaussian(20, 6), gaussian(15, 6, seed=1)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 20)
    codes = orthogonal_matching_pursuit(x, dictionary, 3, metric)
    torch.testing.assert_close(codes, orthogonal_matching_pursuit(metric.whiten(x), metric.whiten(dictionary), 3))
    torch.testing.assert_close(orthogonal_matching_pursuit(x, dictionary * 5, 3, metric) * 5, codes)


def test_dependent_atoms_add_nothing_to_the_projection_on_their_span() -> None:
    x, dictionary = gaussian(9, 3), torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1]]
    codes = orthogonal_matching_pursuit(x, dictionary, 3)
    torch.testing.assert_close(codes @ dictionary, x * torch.tensor([1.0, 1, 0]))
    assert ((codes != 0).sum(1) == 2).all()  # one of the twins, and the fourth atom
    with pytest.raises(ValueError, match="K=4"):
        orthogonal_matching_pursuit(gaussian(9, 3), dictionary, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("condition", [None, 1e2, 1e6])
def test_an_exactly_represented_vector_has_the_code_that_made_it(dtype: torch.dtype, condition: float | None) -> None:
    """faults.md D10: of a vector made of 3 atoms, a pursuit of 20 kept 20 entries, 17 of them of rounding size. Atoms are
    orthonormal in the metric, so that a pursuit finds the right ones first, and of very different length.
    """
    d, rotation = 64, torch.linalg.qr(gaussian(64, 64, seed=2))[0]
    metric = None
    dictionary = torch.linalg.qr(gaussian(d, d))[0]
    if condition is not None:
        metric = AtomicInnerProduct((rotation * torch.logspace(0, math.log10(condition), d).double()) @ rotation.T)
        dictionary = dictionary @ metric.unwhitening
    dictionary = dictionary * torch.logspace(-2, 2, d).double()[:, None]
    chosen = gaussian(50, d, seed=3).argsort(1)[:, :3]
    values = (1 + gaussian(50, 3, seed=4).abs()) / torch.logspace(-2, 2, d).double()[chosen]
    made = torch.zeros(50, d, dtype=torch.float64).scatter_(1, chosen, values)
    x = made @ dictionary
    codes = orthogonal_matching_pursuit(x.to(dtype), dictionary.to(dtype), 20, metric)
    assert torch.equal(codes != 0, made != 0)
    error = 2 * (d + 3) * math.sqrt(condition or 1) * torch.finfo(dtype).eps  # of W x relative to it, as in the metric
    torch.testing.assert_close(codes.double(), made, rtol=error, atol=0)
    assert not orthogonal_matching_pursuit(torch.zeros(2, d, dtype=dtype), dictionary.to(dtype), 20, metric).any()


def test_an_atom_that_later_ones_replace_keeps_no_value_of_rounding_size() -> None:
    """x = e1 + e2 + e3; an atom near their mean is taken first, and is worth nothing once the three are there."""
    dictionary = torch.eye(8)[:5]
    dictionary[4, :5] = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5])
    x = torch.tensor([[1.0, 1.1, 0.9, 0, 0, 0, 0, 0]])
    assert orthogonal_matching_pursuit(x, dictionary, 1).nonzero().tolist() == [[0, 4]]
    codes = orthogonal_matching_pursuit(x, dictionary, 5)
    assert codes.nonzero()[:, 1].tolist() == [0, 1, 2]
    torch.testing.assert_close(codes, torch.tensor([[1.0, 1.1, 0.9, 0, 0]]))


def test_a_vector_that_is_not_represented_exactly_keeps_all_its_atoms() -> None:
    """The bound does not end an honest pursuit: a residual a thousand times above rounding is still pursued."""
    dictionary = torch.linalg.qr(gaussian(64, 64))[0].float()
    x = dictionary[:1] + 1e-3 * dictionary[1:20].sum(0)
    assert (orthogonal_matching_pursuit(x, dictionary, 20) != 0).sum() == 20


def test_matching_finds_a_permutation() -> None:
    a, order = gaussian(12, 5), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    rows, columns, _ = match_atoms(a, a[order] * 3)
    assert torch.equal(order[columns], rows)
    assert mean_matched_cosine(a, a[order]) == pytest.approx(1)


@pytest.mark.parametrize("in_metric", [False, True])
def test_matching_of_unlike_numbers_of_atoms_is_the_best_of_all_assignments(in_metric: bool) -> None:
    a, b, x = gaussian(4, 5), gaussian(6, 5, seed=2), gaussian(60, 5, seed=3) * torch.logspace(-1, 1, 5)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 60) if in_metric else None
    matrix = torch.eye(5, dtype=torch.float64) if metric is None else metric.matrix
    norms = [torch.einsum("nd,de,ne->n", atoms, matrix, atoms).sqrt() for atoms in (a, b)]
    cosine = a @ matrix @ b.T / norms[0][:, None] / norms[1]
    best = max(permutations(range(6), 4), key=lambda p: sum(cosine[i, j].item() for i, j in enumerate(p)))
    rows, columns, cosines = match_atoms(a, b, metric)
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2, 3], list(best))
    torch.testing.assert_close(cosines, cosine[rows, columns])
    back = match_atoms(b, a, metric)
    assert sorted(zip(back[1].tolist(), back[0].tolist(), strict=True)) == list(enumerate(best))
    assert mean_matched_cosine(a, b, metric) == pytest.approx(cosines.mean().item())
