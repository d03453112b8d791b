"""Statistics of a site against figures that are known beforehand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from atomlab.activations.store.activation_store import ActivationStore, Rows
from atomlab.activations.store.moments import exact_moments
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.store.statistics import LEVELS, SiteStatistics, render_statistics, site_statistics
from tests.activations.store.test_activation_store import SEQUENCES, harvest


def spectrum(*eigenvalues: float) -> SiteStatistics:
    return SiteStatistics(1, [1.0] * 7, 0, [], [], 0.0, torch.tensor(eigenvalues, dtype=torch.float64))


def test_effective_rank_and_condition_number_of_known_spectra() -> None:
    assert spectrum(2, 2, 2, 2).effective_rank == pytest.approx(4)
    assert spectrum(5, 0, 0).effective_rank == pytest.approx(1)
    assert spectrum(3, 1).effective_rank == pytest.approx(4 / 3**0.75)  # exp of the entropy of (3/4, 1/4)
    assert spectrum(3, 1, -1e-18).effective_rank == pytest.approx(4 / 3**0.75)
    assert spectrum(8, 4, 2).condition_number == 4
    assert spectrum(8, 4, 0).condition_number == float("inf")
    assert spectrum(8, 4, -1e-18).condition_number == float("inf")


def test_outliers_are_counted_by_position_and_token(tmp_path: Path) -> None:
    """Three rows of large norm, two of them at position 1."""
    folder = tmp_path / "h"
    harvest(folder, sizes=(24,))
    store = ActivationStore(folder / "point", "train")
    norms = torch.linspace(1, 2, 24)
    large = torch.tensor([0, 8, 23])  # tokens 1, 11 and 29, at positions 1, 1 and 13
    norms[large] = torch.tensor([50.0, 60.0, 70.0])
    store.norms = norms
    kept = Rows(store, (norms < 10).nonzero().squeeze(1))
    found = site_statistics(store, exact_moments(kept), Outliers(10))
    assert (found.rows, found.outliers) == (24, 3)
    assert [int(SEQUENCES.position[token]) for token in (1, 11, 29)] == [1, 1, 13]
    assert found.outlier_positions == [(1, 2), (13, 1)]
    assert sorted(found.outlier_tokens) == [(101, 1), (111, 1), (129, 1)]
    ordered = norms.double().sort().values.tolist()
    assert found.norm_quantiles == [ordered[round(level * 23)] for level in LEVELS]
    assert (found.norm_quantiles[0], found.norm_quantiles[-1]) == (min(ordered), 70)
    x = kept[torch.arange(21)].double()
    assert found.mean_norm == pytest.approx(float(x.mean(0).norm()))
    singular = torch.linalg.svdvals(x) ** 2 / 21  # eigenvalues by another way
    torch.testing.assert_close(found.eigenvalues, singular)
    assert site_statistics(store, exact_moments(kept), Outliers(None)).outliers == 0
    text = render_statistics("a site", found, SimpleNamespace(decode=lambda ids: f"word {ids[0]}"))
    assert "outliers: 3 (positions 1 x2, 13 x1; tokens 'word 101' x1" in text
