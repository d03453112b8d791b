"""Entropies against SciPy, and their null against the entropy of the labels."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from atomlab.evaluation.browser.entropies import Entropies, conditional_entropy, measure_entropies
from atomlab.evaluation.browser.firings import Firings


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60))
def test_entropy_is_scipys(pairs: list[tuple[int, int]]) -> None:
    atom, label = torch.tensor(pairs).T
    found = conditional_entropy(atom, label, 5)
    for j in range(5):
        counts = torch.bincount(label[atom == j], minlength=6).numpy()
        if counts.sum():
            assert float(found[j]) == pytest.approx(entropy(counts, base=2), abs=1e-9)
        else:
            assert found[j].isnan()


def firings_on(sample: torch.Tensor, atom: torch.Tensor, samples: int, d_sae: int) -> Firings:
    empty = torch.zeros(1, d_sae)
    counts = torch.bincount(atom, minlength=d_sae)
    return Firings(torch.arange(samples), counts, empty[0], empty, empty.long(), atom, sample, sample.float())


def test_each_entropy_is_of_its_own_labels_and_the_null_of_all_of_them() -> None:
    """Atom 1 fires on sample 0 alone, atom 2 on each sample, both 200,000 times; tokens have four values and documents
    three, of unequal frequency. A plug-in estimate over N draws of m values has the bias (m − 1)/(2 N ln 2) bits and a
    deviation below log2(m)/√N.
    """
    generator = torch.Generator().manual_seed(0)
    n, samples = 200_000, 400
    token = torch.tensor([0, 1, 2, 3, 3, 3, 3, 3]).repeat(samples // 8)
    document = torch.tensor([7, 7, 8, 9]).repeat_interleave(samples // 4)
    sample = torch.cat([torch.zeros(n, dtype=torch.int64), torch.arange(n) % samples])
    atom = torch.tensor([1, 2]).repeat_interleave(n)
    order = torch.randperm(len(atom), generator=generator)
    firings = firings_on(sample[order], atom[order], samples, 3)
    found = measure_entropies(firings, token, document)
    expected = {
        "token_entropy": entropy([1, 1, 1, 5], base=2),
        "document_entropy": entropy([2, 1, 1], base=2),
    }
    for name, value in expected.items():
        values, null = vars(found)[name], vars(found)[f"{name}_null"]
        assert values[0].isnan()
        assert null[0].isnan()
        assert float(values[1]) == 0
        assert float(values[2]) == pytest.approx(value, abs=1e-12)
        for one in null[1:].tolist():
            assert one == pytest.approx(value, abs=3 / (2 * n * math.log(2)) + 5 * 2 / math.sqrt(n))
    again = measure_entropies(firings, token, document, seed=1)
    assert not torch.equal(again.token_entropy_null[1:], found.token_entropy_null[1:])
    assert torch.equal(again.token_entropy[1:], found.token_entropy[1:])


def test_a_rows_medians_are_over_the_atoms_that_fire_ten_times() -> None:
    values = torch.tensor([3.0, 1.0, 9.0, 2.0, math.nan], dtype=torch.float64)
    found = Entropies(values, values + 10, values + 20, values + 30)
    row = found.row(torch.tensor([10, 11, 9, 12, 0]))
    assert row == {
        "token_entropy": 2, "token_entropy_null": 12, "document_entropy": 22, "document_entropy_null": 32,
        "samples_entropy_atoms": 3,
    }  # fmt: skip
    assert replace(found).row(torch.tensor([9, 9, 9, 9, 0])) == {"samples_entropy_atoms": 0}
