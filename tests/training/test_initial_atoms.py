"""Initial atoms are far from each other, near the data, and as many as were asked for; other trainings' atoms are mapped."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.sae import InputTransform, ThresholdSAE, fold
from atomlab.theory import AtomicInnerProduct, random_dictionary
from atomlab.training.initial_atoms import common_atoms, in_coordinates, initial_atoms
from atomlab.training.recipe import InitialAtoms


def clusters(per_cluster: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around twelve directions of 40 dimensions, at two distances from the origin, so that k-means has twins."""
    generator = torch.Generator().manual_seed(0)
    centres = random_dictionary(12, 40, generator)
    lengths = 1 + 4 * torch.rand(12, per_cluster, 1, generator=generator).round()
    noise = 0.05 * torch.randn(12, per_cluster, 40, generator=generator) / 40**0.5
    return (centres[:, None] * lengths + noise).flatten(0, 1), centres


@settings(deadline=None, max_examples=25)
@given(
    source=st.sampled_from(["kmeans", "data"]), d_sae=st.integers(1, 60), samples=st.integers(1, 90),
    bound=st.floats(0.3, 0.9), seed=st.integers(0, 99),
)  # fmt: skip
def test_atoms_have_unit_norm_and_none_but_random_ones_are_nearer_than_the_bound(
    source: str, d_sae: int, samples: int, bound: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 9, generator=generator)
    x[::7] = 0  # vectors without a direction
    options = InitialAtoms(source, passes=2, bound=bound)
    found = initial_atoms(x, d_sae, options, generator)
    assert found.shape == (d_sae, 9)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(d_sae), rtol=0, atol=1e-5)
    if source == "data":  # how many were taken from the data is seen by their cosine with it
        taken = (found @ torch.nn.functional.normalize(x, dim=1).T).amax(1) > 1 - 1e-5
        cosines = (found[taken] @ found[taken].T).abs().fill_diagonal_(0)
        assert bool((cosines <= bound + 1e-5).all())
        rest = torch.nn.functional.normalize(x[x.norm(dim=1) > 0], dim=1)
        if int(taken.sum()) < d_sae and len(rest):  # the data are used up: each vector is near one that was taken
            assert bool(((rest @ found[taken].T).abs().amax(1) > bound - 1e-5).all())


def test_centroids_of_one_direction_are_one_atom_and_every_direction_has_one(capfd: pytest.CaptureFixture[str]) -> None:
    x, centres = clusters(50)
    generator = torch.Generator().manual_seed(1)
    found = initial_atoms(x, 24, InitialAtoms("kmeans", bound=0.8), generator)
    assert "k-means of 600 vectors, 24 initial atoms" in capfd.readouterr().err
    nearest = (found @ centres.T).amax(1)
    assert int((nearest > 0.99).sum()) == 12  # the other twelve are random directions
    assert (centres @ found.T).amax(1).min() > 0.99


def test_atoms_of_another_training_are_its_own_in_the_same_coordinates() -> None:
    """Folding brings atoms to raw coordinates, `in_coordinates` back; scaling in between changes no direction."""
    generator = torch.Generator().manual_seed(2)
    second = torch.randn(200, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    moment = (second.T @ second / 200).double()
    metric = AtomicInnerProduct.from_second_moment(moment)
    mean = torch.randn(6, generator=generator).double()
    moment = moment + torch.outer(mean, mean)
    transform = InputTransform.scaled(mean, metric.power(0.25), metric.power(-0.25), moment)
    sae = ThresholdSAE(6, 14, tied=True)
    folded = fold(sae, transform).with_unit_norm_decoder(metric.matrix.float())
    found = in_coordinates(folded.W_dec.detach(), transform)
    torch.testing.assert_close(found, sae.W_dec.detach(), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(runs=st.integers(2, 5), seed=st.integers(0, 99), noise=st.sampled_from([0.0, 0.1]))
def test_common_atoms_are_those_of_more_than_half_of_the_dictionaries(runs: int, seed: int, noise: float) -> None:
    """Planted atoms in a known number of runs, with signs and orders of each run's own, beside atoms of one run alone."""
    generator = torch.Generator().manual_seed(seed)
    planted = torch.linalg.qr(torch.randn(60, 60, generator=generator))[0]  # no two of them are alike
    shared, own = planted[:10], planted[10:].split(10)
    owners = torch.randint(0, runs + 1, (10,), generator=generator)  # in how many runs each shared atom is
    dictionaries = []
    for run in range(runs):
        some = torch.cat([shared[owners > run], own[run]])
        some = some[torch.randperm(len(some), generator=generator)]
        some = some * torch.randn(len(some), 1, generator=generator).sign()
        some = some + noise * torch.randn(some.shape, generator=generator) / 60**0.5
        dictionaries.append(torch.nn.functional.normalize(some, dim=1))
    found = common_atoms(dictionaries, 0.7)
    near = (found @ shared.T).abs()
    assert len(found) == int((2 * owners > runs).sum())
    assert bool((near.amax(1) > 0.95).all()) if len(found) else True
    assert set(near.argmax(1).tolist()) == set((2 * owners > runs).nonzero()[:, 0].tolist())
    counted = owners[near.argmax(1)]
    assert bool((counted.diff() <= 0).all())


def test_given_atoms_come_first_and_near_copies_of_them_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 12, generator=generator)
    given = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0][:4]
    found = initial_atoms(x, 10, InitialAtoms("data", bound=0.7), generator, first=torch.cat([given, -given]))
    torch.testing.assert_close(found[:4], given)
    assert float((found[4:] @ given.T).abs().max()) <= 0.7 + 1e-6
