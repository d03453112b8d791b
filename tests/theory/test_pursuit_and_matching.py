"""Orthogonal matching pursuit against scikit-learn's; matching against brute force."""

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


def test_dependent_atoms_give_finite_codes() -> None:
    dictionary = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1]]
    codes = orthogonal_matching_pursuit(gaussian(9, 3), dictionary, 3)
    assert torch.isfinite(codes).all()
    with pytest.raises(ValueError, match="K=4"):
        orthogonal_matching_pursuit(gaussian(9, 3), dictionary, 4)


def test_matching_finds_a_permutation_and_the_best_assignment() -> None:
    a, order = gaussian(12, 5), torch.randperm(12)
    rows, columns, _ = match_atoms(a, a[order] * 3)
    assert torch.equal(order[columns], rows)
    assert mean_matched_cosine(a, a[order]) == pytest.approx(1)
    b = gaussian(5, 5, seed=2)
    cosine = torch.nn.functional.normalize(a[:5], dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    best = max(sum(cosine[i, j].item() for i, j in enumerate(p)) for p in permutations(range(5)))
    assert match_atoms(a[:5], b)[2].sum().item() == pytest.approx(best)
