"""The first vectors of a validation are a random sample, though rows lie by length of their sequence (faults.md D8)."""

import math

import pytest
import torch

from atomlab.activations.batches.shuffle import RandomBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import SPLITS
from atomlab.activations.model.language_model import LanguageModel
from tests.activations.modules import data_module
from tests.tiny import workplace

ROWS, FIRST = 10_000, 256


def bound(population: torch.Tensor, count: int) -> float:
    """Five standard deviations of the mean of a sample without replacement."""
    n = len(population)
    return 5 * math.sqrt(float(population.var(correction=0)) / count * (n - count) / (n - 1))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_statistic_of_the_first_vectors_is_that_of_all_where_rows_trend_with_their_place(world_size: int) -> None:
    population = torch.linspace(0, 1, ROWS, dtype=torch.float64) ** 2
    share = FIRST // world_size
    firsts = [
        torch.cat(list(RandomBatches(ROWS, 96, rank=rank, world_size=world_size)))[:share] for rank in range(world_size)
    ]
    drawn = torch.cat(firsts)
    assert len(drawn.unique()) == share * world_size
    for rows in (drawn, *firsts):  # all of them, and each process's own
        assert abs(float(population[rows].mean() - population.mean())) < bound(population, len(rows))
    prefix = population[:FIRST]
    assert abs(float(prefix.mean() - population.mean())) > bound(population, FIRST)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ActivationDataModule:
    """Documents of 20 to 80 tokens that are cut at 32: short sequences come first, and position follows the place."""
    folder = workplace(tmp_path_factory.mktemp("work"))
    model = LanguageModel(str(folder / "model"), dtype="float32", device="cpu")
    text = LocalText(str(folder / "text.txt"))
    found = data_module(
        model, text, site="resid_post", layer=1, context=32, cache_dir=str(folder / "cache"), size=100,
        fractions=(0.4, 0.3, 0.3), seed=3,
    )  # fmt: skip
    found.prepare_data()
    found.setup()
    return found


def test_a_validations_first_vectors_are_the_sample_of_that_size(data: ActivationDataModule) -> None:
    batches = list(data.val_dataloader())
    every = torch.cat(batches)
    rows = data.rows["validation"]
    assert len(every) == len(rows)
    for count in (100, 256):
        assert torch.equal(every[:count], data.sample("validation", count))
    stored = rows[torch.arange(len(rows))]
    place = (every[:FIRST, None] == stored[None]).all(2).double().argmax(1).double() / len(stored)
    assert abs(float(place.mean()) - 0.5) < bound(torch.arange(len(stored)).double() / len(stored), FIRST)
    half = place[:50]  # of one batch too: its rows are not in the order of the disk
    assert abs(float(half.mean()) - 0.5) < bound(torch.arange(len(stored)).double() / len(stored), 50)


def test_there_is_no_loader_of_the_test_split(data: ActivationDataModule) -> None:
    """faults.md D4: Lightning's own test stage has nothing to read."""
    assert set(data.rows) == set(SPLITS)
    assert type(data).test_dataloader is type(data).__mro__[1].test_dataloader
