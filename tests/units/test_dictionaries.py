"""Controls behave as theory says (theory.md 9)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from atomlab.metrics import ExplainedVariance
from atomlab.theory import AtomicInnerProduct, match_atoms, stability_pairwise
from atomlab.units import Unit, data_dictionary, data_nearest, k_means, neurons, random_atoms

D = 12


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def metric(seed: int = 3) -> AtomicInnerProduct:
    root = torch.randn(D, D, generator=generator(seed), dtype=torch.float64)
    return AtomicInnerProduct.from_second_moment(root @ root.T + torch.eye(D))


def vectors(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, D, generator=generator(seed)) * torch.linspace(1, 3, D) + 5


def r2(unit: Unit, x: torch.Tensor, norm: AtomicInnerProduct | None = None) -> float:
    explained = ExplainedVariance(D, norm)
    explained.update(x, unit.reconstruct(x))
    return float(explained.compute())


def test_the_data_as_dictionary_remembers_and_knows_nothing_else() -> None:
    train, test = vectors(60), vectors(200, seed=2)
    mean = train.mean(0)
    dictionary = data_dictionary(train, mean, d_sae=100, generator=generator())
    unit = data_nearest(dictionary, mean, metric())
    assert len(dictionary) == 60
    assert (unit.encode(train) != 0).sum(1).tolist() == [1] * 60
    for norm in (None, metric()):
        assert r2(unit, train, norm) > 1 - 1e-9
        assert r2(unit, test, norm) < 0.7


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_the_nearest_atom_is_that_of_brute_force_and_its_coefficient_a_projection(seed: int) -> None:
    s, dictionary, x = metric(), vectors(20, seed) - 5, vectors(7, seed + 1)
    mean = torch.full((D,), 5.0)
    codes = data_nearest(dictionary, mean, s).encode(x)
    for vector, code in zip(x - mean, codes, strict=True):
        cosines = torch.stack([s.cosine(vector, atom) for atom in dictionary])
        best = int(cosines.argmax())
        assert code.nonzero().flatten().tolist() == ([best] if cosines[best] > 0 else [])
        if cosines[best] > 0:  # the residual of a projection is orthogonal to the atom
            residual = vector - code[best] * dictionary[best]
            assert abs(float(s.cosine(residual, dictionary[best]))) < 1e-4


def test_a_subset_of_the_data_holds_no_duplicates_and_is_the_same_for_the_same_seed() -> None:
    train = vectors(50).repeat(3, 1)
    mean = torch.zeros(D)
    a, b, c = (data_dictionary(train, mean, 30, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert len(a.unique(dim=0)) == 30
    assert len(data_dictionary(train, mean, 1000, generator())) == 50
    assert torch.isin(a, train).all()


def test_k_means_finds_planted_clusters_in_the_metric() -> None:
    s = metric()
    centres = 20 * torch.randn(6, D, generator=generator(5)) @ s.unwhitening.float()
    x = centres[torch.arange(600) % 6] + 0.1 * vectors(600) - 0.5
    mean = x.mean(0)
    found = k_means(x, mean, 6, s, seed=0)
    cosines = match_atoms(found, centres - mean, s)[2]
    assert float(cosines.min()) > 0.999
    assert r2(data_nearest(found, mean, s), x, s) > 0.99


def test_there_are_never_more_centroids_than_vectors() -> None:
    """As many as vectors: each vector is its own centroid."""
    x = vectors(9)
    found = k_means(x, x.mean(0), 30, metric(), seed=0)
    assert len(found) == 9
    assert torch.cdist(x - x.mean(0), found).min(1).values.max() < 1e-4


@pytest.mark.parametrize("k", [3, 5, 8])
def test_q_star_of_random_atoms_is_the_closed_form(k: int) -> None:
    """cos² of independent directions is Beta(1/2, (d − 1)/2), so at constant K the pairwise q* is its distribution
    function at 1/(2K − 1)².
    """
    s = AtomicInnerProduct.from_second_moment(torch.diag(torch.linspace(1, 9, 64, dtype=torch.float64)))
    dictionary = random_atoms(800, 64, s, generator())
    sizes = torch.bincount(torch.tensor([k] * 10), minlength=k + 1)
    expected = beta.cdf((1 / (2 * k - 1)) ** 2, 0.5, 63 / 2)
    # The pairs of n atoms are nearly independent: a binomial share of n(n − 1)/2 of them, four standard deviations.
    tolerance = 4 * (expected * (1 - expected) / (800 * 799 / 2)) ** 0.5 + 2e-5
    assert stability_pairwise(dictionary, sizes, s) == pytest.approx(expected, abs=tolerance)


def test_random_atoms_have_unit_s_norm() -> None:
    s = metric()
    torch.testing.assert_close(s.norm(random_atoms(40, D, s, generator())), torch.ones(40))


def test_neurons_reconstruct_by_construction() -> None:
    x = vectors(10)
    assert torch.equal(neurons(D).reconstruct(x), x)
