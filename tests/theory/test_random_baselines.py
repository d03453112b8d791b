"""What chance gives: the null keeps sizes and values, and is as theory.md says a random dictionary is."""

import math
from itertools import combinations

import torch
from scipy.stats import beta, chisquare, kstest

from atomlab.theory import (
    AtomicInnerProduct,
    mutual_coherence,
    random_codes,
    random_dictionary,
    recovery_levels,
    stability_pairwise,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_null_codes_keep_sizes_and_values_on_uniform_supports() -> None:
    codes = torch.rand(4000, 10, generator=generator()) * (torch.rand(4000, 10, generator=generator()) > 0.7)
    codes[:, 5:] = 0
    null = random_codes(codes, torch.Generator().manual_seed(1))
    torch.testing.assert_close(null.sort(dim=1).values, codes.sort(dim=1).values, rtol=0, atol=0)
    share = (null > 0).double().mean(0) / (codes > 0).double().mean()
    assert (share - 1).abs().max() < 5 / math.sqrt((codes > 0).sum() / 10)  # five standard deviations
    assert (null[:, 5:] > 0).any()


def test_each_share_of_the_samples_gets_the_supports_that_it_has_among_all() -> None:
    codes = torch.rand(31, 10, generator=generator()) * (torch.rand(31, 10, generator=generator()) > 0.7)
    whole = random_codes(codes, generator())
    for rank in range(3):
        drawn, own = generator(), codes[rank::3]
        parts = [random_codes(part, drawn, (rank, 3)) for part in own.split([4, 6, len(own) - 10])]
        assert torch.equal(torch.cat(parts), whole[rank::3])


def test_a_random_dictionary_reaches_a_high_q_and_certifies_little() -> None:
    """q* of nothing but chance is high while hardly a code of that size is unique: an index, not a certificate."""
    dictionary = random_dictionary(1024, 256, generator())
    codes = torch.zeros(40, 1024)
    codes[:, :3] = 1
    null = random_codes(codes, generator())
    assert stability_pairwise(dictionary, torch.bincount((null > 0).sum(1))) > 0.99
    levels = recovery_levels(null, dictionary, solve=False)
    assert not levels.coherence.any()


def test_random_atoms_on_the_unit_sphere_of_a_metric_are_random_atoms() -> None:
    x = torch.randn(500, 6, generator=generator(), dtype=torch.float64).exp()
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 500)
    white = random_dictionary(20, 6, generator()).double()
    atoms = white @ metric.unwhitening
    torch.testing.assert_close(metric.norm(atoms), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-6)
    assert abs(mutual_coherence(atoms, metric) - mutual_coherence(white)) < 1e-9


def test_random_atoms_have_the_cosines_of_uniform_directions() -> None:
    """cos² of independent uniform directions is Beta(1/2, (d − 1)/2), and its sign is a fair coin; pairs are disjoint."""
    atoms = random_dictionary(4000, 6, generator()).double()
    cosines = (atoms[::2] * atoms[1::2]).sum(1)
    assert kstest(cosines.square().numpy(), beta(0.5, 2.5).cdf).pvalue > 1e-3
    assert abs((cosines > 0).sum().item() - 1000) < 4 * 2000**0.5 / 2  # four standard deviations


def test_random_supports_are_uniform_over_all_pairs() -> None:
    codes = torch.zeros(6000, 6)
    codes[:, [1, 4]] = torch.tensor([1.0, 2.0])
    null = random_codes(codes, generator())
    pairs = [tuple(row.nonzero()[:, 0].tolist()) for row in null]
    assert chisquare([pairs.count(pair) for pair in combinations(range(6), 2)]).pvalue > 1e-3
    first_is_smaller = sum(row[row > 0][0] == 1 for row in null)
    assert abs(int(first_is_smaller) - 3000) < 4 * 6000**0.5 / 2  # values do not follow the order of latents
