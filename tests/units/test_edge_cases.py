"""Vectors that no atom is near to, centroids without a direction, and seeds."""

import torch

from atomlab.theory import AtomicInnerProduct
from atomlab.units import data_nearest, k_means


def metric() -> AtomicInnerProduct:
    return AtomicInnerProduct.from_second_moment(torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)))


def test_a_vector_against_all_atoms_has_an_empty_code() -> None:
    """Its nearest atom has a negative cosine, and the code is not signed."""
    mean, dictionary = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]])
    unit = data_nearest(dictionary, mean, metric())
    codes = unit.encode(mean + torch.tensor([[-1.0, -1, -1], [-3, 4, 0]]))
    torch.testing.assert_close(codes, torch.tensor([[0.0, 0, 0], [0, 2, 0]]))
    torch.testing.assert_close(unit.decode(codes), mean + torch.tensor([[0.0, 0, 0], [0, 4, 0]]))


def test_a_centroid_on_the_mean_is_left_out() -> None:
    """Two clusters of equal vectors, of which one lies on the mean: it has no direction."""
    mean, other = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([5.0, 1.0, -1.0])
    found = k_means(torch.stack([mean, other]).repeat(20, 1), mean, 2, metric(), seed=0)
    torch.testing.assert_close(found, (other - mean)[None])


def test_the_seed_decides_the_centroids() -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    a, b, c = (k_means(x, x.mean(0), 20, metric(), seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
