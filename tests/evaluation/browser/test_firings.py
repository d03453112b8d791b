"""Firings and whole sequences against dense codes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.firings import find_firings, whole_sequences
from atomlab.units import Unit
from tests.evaluation.browser.units import unit

Data = Callable[..., ActivationDataModule]


@pytest.mark.parametrize("offset", [1.0, 12.0])
def test_firings_are_those_of_dense_codes(data_of: Data, offset: float) -> None:
    """With the larger offset atoms fire less often than there are contexts."""
    data = data_of()
    rows = data.rows["test"]
    found = find_firings(unit(data.d_in, offset=offset), rows, 150, contexts=4, batch=37)
    codes = unit(data.d_in, offset=offset).encode(rows[found.rows])
    assert torch.equal(found.counts, (codes > 0).sum(0))
    assert found.counts[4] == 0
    assert bool((found.counts[found.counts > 0] < 4).any()) == (offset > 1)
    torch.testing.assert_close(found.top_values, codes.topk(4, dim=0).values)
    for k, j in (found.top_values > 0).nonzero().tolist():
        assert codes[found.top_samples[k, j], j] == found.top_values[k, j]
    for j, mean in enumerate(found.mean.tolist()):
        fires = codes[:, j] > 0
        assert mean == (pytest.approx(float(codes[fires, j].double().mean()), rel=1e-6) if fires.any() else 0)
    dense = torch.zeros_like(codes)
    dense[found.sample, found.atom] = found.value
    assert torch.equal(dense, codes)


def test_signed_codes_are_searched_on_their_positive_side(data_of: Data) -> None:
    data = data_of()
    rows = data.rows["test"]
    one = unit(data.d_in)
    signed = Unit("signed", one.dictionary, one.bias, lambda x: x @ one.dictionary.T, signed=True, coder="identity")
    clamped = replace(signed, encode=lambda x: (x @ one.dictionary.T).clamp(min=0))
    found, expected = (find_firings(each, rows, 100, contexts=3, batch=50) for each in (signed, clamped))
    for name, value in vars(found).items():
        assert torch.equal(value, vars(expected)[name]), name


def test_rows_come_in_whole_sequences(data_of: Data) -> None:
    rows = data_of().rows["test"]
    sequences = rows.store.origins.sequences
    token = sequences.keep.nonzero().squeeze(1)[rows.numbers]
    sequence = torch.searchsorted(sequences.offsets, token, right=True) - 1
    longest = int(torch.bincount(sequence).max())
    chosen = whole_sequences(rows, 100)
    assert torch.equal(torch.isin(sequence, sequence[chosen]).nonzero().squeeze(1), chosen)
    assert 100 - longest < len(chosen) <= 100
    assert torch.equal(whole_sequences(rows, 10**9), torch.arange(len(rows)))
    assert len(sequence[whole_sequences(rows, 1)].unique()) == 1
    assert len({tuple(whole_sequences(rows, 100, seed).tolist()) for seed in range(5)}) == 5
