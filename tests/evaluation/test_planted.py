"""Planted laws have the coherence, sparsity and structure that they are named by; certificates hold against the truth."""

import itertools
import math

import pytest
import torch

from atomlab.coders import nonnegative_omp
from atomlab.evaluation.planted import planted_laws, unbiased_bases
from atomlab.evaluation.rows.against_truth import Truth, against_truth, contradictions
from atomlab.evaluation.studies.synthetic import verdict
from atomlab.theory.certificate_levels import recovery_levels
from atomlab.units import Unit

LAWS = {law.name: law for law in planted_laws(16, 2.0, seed=0)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("d_in", [4, 16, 64])
def test_unbiased_bases_have_the_coherence_of_their_name(d_in: int) -> None:
    atoms = unbiased_bases(d_in)
    gram = atoms @ atoms.T
    first, second, between = gram[:d_in, :d_in], gram[d_in:, d_in:], gram[:d_in, d_in:]
    torch.testing.assert_close(first, torch.eye(d_in))
    torch.testing.assert_close(second, torch.eye(d_in), rtol=0, atol=1e-6)
    torch.testing.assert_close(between.abs(), torch.full((d_in, d_in), d_in**-0.5))


@pytest.mark.parametrize("name", LAWS)
def test_every_law_fires_at_its_rate(name: str) -> None:
    """A standard error of the mean L0 is below 2 / √20,000 · 2 = 0.03: sums of 32 firings, at most four of them together."""
    law = LAWS[name]
    x, codes = law.draw(20_000, seeded(1))
    fires = codes > 0
    assert torch.equal(x, codes @ law.dictionary)
    assert fires.any(1).all()
    assert float(codes[fires].min()) >= 0.5
    assert float(codes.max()) <= 1.5
    silent = math.exp(-2)  # about this share of vectors would have none, and gets one
    assert abs(float(fires.sum(1).double().mean()) - 2.0) < 0.12 + (0.4 if "hier" in name or "corr" in name else silent)


def test_structures_are_what_they_are_called() -> None:
    fires = LAWS["random, hierarchical"].draw(20_000, seeded(2))[1] > 0
    alone = fires.sum(1) == 1  # a vector that would be silent gets one feature, whichever it is
    parents = fires[~alone].view(-1, 8, 4)
    assert not (parents[:, :, 1:].any(2) & ~parents[:, :, 0]).any()
    child_given_parent = parents[:, :, 1:][parents[:, :, 0]].double().mean()
    assert 0.45 < float(child_given_parent) < 0.65  # ½, a little more without those that fire alone
    fires = (LAWS["random, correlated"].draw(20_000, seeded(2))[1] > 0).double()
    matrix = torch.corrcoef(fires.T)
    within = torch.tensor([matrix[i, j] for i, j in itertools.combinations(range(32), 2) if i // 4 == j // 4])
    across = torch.tensor([matrix[i, j] for i, j in itertools.combinations(range(32), 2) if i // 4 != j // 4])
    assert float(within.min()) > 0.15 > 0.06 > float(across.abs().max())


def omp_unit(dictionary: torch.Tensor, k: int) -> Unit:
    return Unit(
        "planted",
        dictionary,
        torch.zeros(dictionary.shape[1]),
        lambda x: nonnegative_omp(x, dictionary, k),
        False,
        "OMP",
    )


@pytest.mark.parametrize("name", LAWS)
def test_no_certified_code_on_the_true_atoms_is_another_than_the_true_one(name: str) -> None:
    """A certified code of x that differs from the true one and is no worse would refute the certificate."""
    law = LAWS[name]
    x, codes = law.draw(600, seeded(3))
    row = against_truth(omp_unit(law.dictionary, int((codes > 0).sum(1).max())), Truth(x, law.dictionary, codes))
    assert row["contradictions_1"] == 0
    assert row["contradictions_4"] == 0
    assert row["mcc"] == pytest.approx(1)
    if name == "unbiased bases":  # μ = 1/4: up to two atoms are certified, and greedy search finds all of these
        assert row["certified_level_1"] > 0.5
        assert row["true_if_certified_1"] == 1.0


def test_true_codes_that_are_certified_are_the_ones_that_a_solver_finds() -> None:
    law = LAWS["random atoms"]
    _, codes = law.draw(60, seeded(4))
    levels = recovery_levels(codes, law.dictionary)
    assert levels.solved is not None
    assert 0 < int(levels.dual_certificate.sum()) < 60
    assert not (levels.dual_certificate & ~levels.solved).any()


def test_a_wrong_certificate_would_be_seen() -> None:
    """d₃ = (d₁ + d₂)/√2, so d₁ + d₂ has a sparser code; certified by a liar, its code of two atoms is refuted."""
    atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5**0.5, 0.5**0.5, 0.0]])
    x = torch.tensor([[1.0, 1.0, 0.0]])
    two, one = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 2**0.5]])
    unit = Unit("two atoms", atoms, torch.zeros(3), lambda _: two, False, "by hand")
    truth, lie = Truth(x, atoms, one), torch.tensor([True])
    for level in (1, 4):
        assert contradictions(unit, two, x, lie, truth, level).tolist() == [True]
        assert contradictions(unit, one, x, lie, truth, level).tolist() == [False]
        assert contradictions(unit, two, x, ~lie, truth, level).tolist() == [False]
        assert contradictions(unit, two, x + 1e-3, lie, truth, level).tolist() == [False]  # a code of another vector
    row = against_truth(unit, truth)
    assert row["certified_level_1"] == row["certified_level_4"] == 0  # and nothing certifies it
    assert row["f1"] == 0
    assert "ERROR OF ATOMLAB" in verdict([{"unit": "TSAE", "mcc": 1.0, "contradictions": 1}])
    assert "No certificate is refuted" in verdict([{"unit": "TSAE", "mcc": 1.0, "contradictions": 0}])


def test_numbers_against_the_truth_by_hand() -> None:
    """Atoms in another order and length, one more atom, and one firing missed in four."""
    atoms = torch.eye(3)
    codes = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = torch.cat([2 * atoms[[1, 0, 2]], torch.tensor([[-1.0, 0.0, 0.0]])])
    own = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5]])
    unit = Unit("found", found, torch.zeros(3), lambda _: own, False, "by hand")
    row = against_truth(unit, Truth(codes @ atoms, atoms, codes))
    assert row["mcc"] == pytest.approx(1)
    assert row["f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert row["true"] == pytest.approx(2 / 3)
    assert row["l0"] == pytest.approx(4 / 3)
    errors, spread = torch.tensor([0.0, 0.0, 1.5]), codes - codes.mean(0)
    assert row["r2"] == pytest.approx(1 - float(errors.square().sum() / spread.square().sum()))
