"""Documents of held-out vectors, R² within bands of the norm, and quantiles over vectors."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation import StudyInputs, measure
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.norm_bands import NormBands
from atomlab.evaluation.rows.vector_tables import band_tables
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.theory import AtomicInnerProduct
from atomlab.units import Unit

D = 6


@given(names=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60), size=st.integers(1, 20))
def test_batches_go_through_every_vector_once_document_by_document(names: list[str], size: int) -> None:
    vectors = torch.arange(float(len(names)))[:, None]
    made = HeldOut.from_names(vectors, names)
    assert made.count == made.documents == len(set(names))
    seen: dict[int, list[int]] = {}
    for x, parts in made.batches(size):
        assert len(x) <= size
        assert sum(part.stop - part.start for _, part in parts) == len(x)
        for group, part in parts:
            seen.setdefault(group, []).extend(x[part, 0].int().tolist())
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        by_name.setdefault(name, []).append(i)
    assert sorted(seen.values()) == sorted(by_name.values())
    assert sorted(seen) == list(range(made.count))


def test_many_documents_are_joined_whole_and_evenly() -> None:
    names = [f"{i % 700}" for i in range(2100)]
    made = HeldOut.from_names(torch.zeros(2100, 1), names)
    assert (made.documents, made.count) == (700, 200)
    groups = {name: {int(g) for g, n in zip(made.groups, names, strict=True) if n == name} for name in set(names)}
    assert {len(group) for group in groups.values()} == {1}
    assert set(made.groups.bincount().tolist()) == {9, 12}  # 3 or 4 documents of 3 vectors


def test_each_row_has_its_own_document(inputs: StudyInputs) -> None:
    data: ActivationDataModule = inputs.data
    held_out, rows = HeldOut.of(data, 120), data.rows["test"]
    everything = rows[torch.arange(len(rows))]
    place = {tuple(vector.tolist()): i for i, vector in enumerate(everything)}
    names = data.sample_groups("test", 120)
    for vector, name in zip(held_out.vectors, names, strict=True):
        assert rows.origin(torch.tensor([place[tuple(vector.tolist())]])).group == [name]
    assert held_out.documents == len(set(names)) > 1


def test_bands_are_r2_of_their_vectors_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, D, generator=generator) * torch.rand(1000, 1, generator=generator).exp() + 1
    x_hat = x + 0.1 * torch.randn(1000, D, generator=generator)
    s = torch.arange(1.0, D + 1).double()
    bands = NormBands(x, AtomicInnerProduct(torch.diag(s)))
    for part in torch.arange(1000).split(300):
        bands.update(x[part], x_hat[part])
    found = bands.rows()
    assert [band["samples"] for band in found] == [500, 400, 80, 20]
    order = x.double().norm(dim=1).argsort()
    variance = (x.double() - x.double().mean(0)).square().sum(1)
    for band, chosen in zip(found, order.split([500, 400, 80, 20]), strict=True):
        mine, error = x[chosen].double(), x[chosen].double() - x_hat[chosen]
        centred = mine - mine.mean(0)
        assert band["r2"] == pytest.approx(float(1 - error.square().sum() / centred.square().sum()))
        assert band["r2_s"] == pytest.approx(float(1 - (error.square() * s).sum() / (centred.square() * s).sum()))
        assert band["share"] == pytest.approx(float(variance[chosen].sum() / variance.sum()))
    assert found[0]["from"] == pytest.approx(float(x.double().norm(dim=1).min()))
    assert all(low["to"] == high["from"] for low, high in itertools.pairwise(found))
    ((lines, columns),) = band_tables([{"unit": "atoms", "bands": found}, {"unit": "neurons", "bands": found}]).values()
    assert [line["unit"] for line in lines] == ["atoms"] * 4
    assert {column.key for column in columns} <= lines[0].keys()


def test_intervals_hold_the_number_and_shrink_with_more_documents() -> None:
    """Vectors of one document share a centre, so that documents and not vectors are the sample."""
    generator = torch.Generator().manual_seed(0)
    sizes, s = SampleSizes(measured=1200, resampled=500), AtomicInnerProduct(torch.eye(D).double())
    widths = []
    for documents in (6, 60):
        scale = torch.rand(documents, 1, generator=generator) + 0.2
        names = [str(i % documents) for i in range(1200)]
        x = torch.randn(1200, D, generator=generator) * scale.repeat(1200 // documents, 1) + 1
        unit = Unit("clipped", torch.eye(D), torch.ones(D), lambda v: (v - 1).clamp(-0.8, 0.8), True, "identity")
        row, replicates = measure(unit, x, HeldOut.from_names(x, names), s, sizes)
        assert row["r2_interval"]["low"] < row["r2"] < row["r2_interval"]["high"]
        assert replicates["r2"].shape == (500,)
        assert row["samples_documents"] == documents
        widths.append(row["r2_interval"]["high"] - row["r2_interval"]["low"])
    assert widths[1] < widths[0] / 2


def test_a_few_large_vectors_carry_r2_and_not_its_quantiles() -> None:
    x = torch.cat([torch.randn(990, D, generator=torch.Generator().manual_seed(1)), 1000 + torch.randn(10, D)])
    unit = Unit("large only", torch.eye(D), x.mean(0), lambda v: (v - x.mean(0)) * (v[:, :1] > 100), True, "identity")
    row, _ = measure(
        unit, x, HeldOut.independent(x), AtomicInnerProduct(torch.eye(D).double()), SampleSizes(resampled=10)
    )
    assert row["r2"] > 0.98
    assert row["r2_vector_median"] == pytest.approx(0, abs=1e-6)
