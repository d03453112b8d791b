"""What the block shuffle leaves of the correlation of neighbours, on real activations, against its exact expectation."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atomlab.activations.batches.shuffle import ShuffledBatches, neighbour_correlation
from atomlab.activations.corpora.wikipedia import wikipedia_articles
from atomlab.activations.model.capture import capture
from atomlab.activations.model.sites import resolve_site
from atomlab.activations.model.smollm2 import smollm2

ROWS, BLOCK, SEEDS = 2048, 16, 24


@pytest.fixture(scope="module")
def activations(cache: Path) -> Tensor:
    """SmolLM2's residual stream after layer 1 over the first articles, in the order of the text."""
    model = smollm2(str(cache))
    text = "\n".join(article for _, (_, article) in zip(range(6), wikipedia_articles(), strict=False))
    ids = torch.tensor(model.tokenizer(text, verbose=False)["input_ids"][: ROWS // 64 * 65]).view(-1, 65)
    point = resolve_site("resid_post", 1, model.family, model.num_layers)
    return capture(model.load([point]), [point], {"input_ids": ids})[point][:, 1:].flatten(0, 1)


def shuffled(x: Tensor, window: int, seed: int) -> Tensor:
    return x[next(iter(ShuffledBatches(ROWS, ROWS, 1, seed=seed, block_rows=BLOCK, window_rows=window)))]


def expected(x: Tensor, window: int) -> float:
    """Of the n − 1 neighbours, those in one window are of one block with probability (b − 1) / (w − 1); all others
    are a random pair of different blocks.
    """
    centred = (x.double() - x.double().mean(0)).view(-1, BLOCK, x.shape[1])
    total = float(centred.square().sum())
    same = float(centred.sum(1).square().sum()) - total  # over the ordered pairs of different rows of one block
    pairs = ROWS * (BLOCK - 1)
    other = -(total + same) / (ROWS * (ROWS - BLOCK))  # all ordered pairs sum to zero
    within = (ROWS // window) * (window - 1) * (BLOCK - 1) / (window - 1)
    return (within * same / pairs + (ROWS - 1 - within) * other) / total


@pytest.mark.parametrize("window", [32, 128, ROWS])
def test_neighbours_correlate_as_stated(activations: Tensor, window: int) -> None:
    assert activations.shape == (ROWS, 576)
    found = torch.tensor([neighbour_correlation(shuffled(activations, window, seed)) for seed in range(SEEDS)])
    error = float(found.std()) / math.sqrt(SEEDS)
    assert abs(float(found.mean()) - expected(activations, window)) < 4 * error
    if window == ROWS:
        full = torch.stack([_permuted(activations, seed) for seed in range(SEEDS)])
        assert abs(float(full.mean()) + 1 / ROWS) < 4 * float(full.std()) / math.sqrt(SEEDS)
        assert float(found.std()) < 2 * float(full.std())
    elif window == 2 * BLOCK:
        assert float(found.mean()) > 8 * error  # a small window is told from a full shuffle
    assert float(found.max()) < 0.5 * neighbour_correlation(activations)


def _permuted(x: Tensor, seed: int) -> Tensor:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(neighbour_correlation(x[order]))
