"""`activations.batches.vectors`: a part of the training vectors, from the harvest of all of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atomlab.activations import LanguageModel
from atomlab.activations.batches.order import Online, TrainingBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from tests.activations.modules import data_module


@pytest.fixture(scope="module")
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationDataModule:
    model = LanguageModel(str(tiny / "model"), dtype="float32", device="cpu")
    cache = tmp_path_factory.mktemp("cache")
    found = data_module(
        model, LocalText(str(tiny / "text.txt")), site="resid_post", layer=1, context=32, cache_dir=str(cache), size=64
    )
    found.prepare_data()
    found.setup()
    return found


def part(data: ActivationDataModule, vectors: int) -> ActivationDataModule:
    other = data.at("resid_post", 1)
    other.batches = replace(data.batches, vectors=vectors)
    other.prepare_data()
    other.setup()
    return other


def test_fewer_vectors_are_nested_have_their_own_moments_and_need_no_other_harvest(data: ActivationDataModule) -> None:
    before = sorted(data.harvests.cache_dir.rglob("*"))
    small, large = part(data, 200), part(data, 1000)
    chosen = [set(found.rows["train"].numbers.tolist()) for found in (small, large, data)]
    assert [len(numbers) for numbers in chosen[:2]] == [200, 1000]
    assert chosen[0] < chosen[1] < chosen[2]
    vectors = small.rows["train"][torch.arange(200)].double()
    torch.testing.assert_close(small.moments.mean, vectors.mean(0))
    torch.testing.assert_close(small.moments.second_moment, vectors.T @ vectors / 200)
    assert len(small.sample("train", 4096)) == 200
    for split in ("validation", "test"):
        assert torch.equal(small.sample(split, 50), data.sample(split, 50))
    assert torch.equal(small.reference_moments.second_moment, data.reference_moments.second_moment)
    read = torch.cat([batch for batch, _ in zip(small.train_dataloader(), range(3), strict=False)])
    assert all((read[:, None] == vectors.float()[None]).all(2).any(1))
    assert sorted(data.harvests.cache_dir.rglob("*")) == before


def test_the_record_of_a_run_has_the_number_only_where_there_is_one(data: ActivationDataModule) -> None:
    assert "vectors" not in data.identity["activations"]["batches"]
    assert part(data, 200).identity["activations"]["batches"]["vectors"] == 200


def test_a_number_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="vectors=100 should be a batch or more, batch_size=512"):
        TrainingBatches(vectors=100)
    with pytest.raises(ValueError, match="is of a harvest, and online training takes vectors without end"):
        TrainingBatches(vectors=1000, online=Online())
