"""Which atoms never fire: counted on many more training vectors than the rest of a row, since rare atoms are not dead ones."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from atomlab.activations.batches.shuffle import random_order
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.metrics import FiringShare
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row
from atomlab.units import Unit


def firing_on_training(unit: Unit, data: ActivationDataModule, sample_sizes: SampleSizes) -> Row:
    """Measures `firing_shares` of one-step codes on `sample_sizes.fired` training vectors, drawn at random.

    An atom that fires on one vector of ten thousand is rare, and on four thousand vectors it would pass for dead. Codes that
    a search finds are left out: they cost many times as much, and a search may take any atom.

    Args:
        unit: Dictionary and encoder.
        data: The activations, set up.
        sample_sizes: Number of vectors, and how many are encoded at a time.

    Returns:
        What `firing_shares` returns; empty where `unit` has no one-step code.

    Cost: one pass over the vectors. Memory: one batch.
    """
    if unit.coder != "one-step":
        return {}
    rows = data.rows["train"]
    drawn = random_order(len(rows), data.seed)[: sample_sizes.fired].sort().values  # in the order of the store
    return firing_shares(unit, (rows[numbers] for numbers in drawn.split(sample_sizes.batch)))


@torch.no_grad()
def firing_shares(unit: Unit, blocks: Iterable[Tensor]) -> Row:
    """Counts on how many vectors each atom fires.

    Args:
        unit: Dictionary and encoder.
        blocks: Vectors, (samples, d_in) each.

    Returns:
        `dead` and `single_sample`, the shares of atoms that fire on none and on exactly one of the vectors; and
        `samples_fired`, the number of vectors. Exact for these vectors.
    """
    shares = MetricCollection({"dead": FiringShare(unit.d_sae, 0), "single_sample": FiringShare(unit.d_sae, 1)})
    count = 0
    for x in blocks:
        shares.update(unit.encode(x))
        count += len(x)
    return {name: float(value) for name, value in shares.compute().items()} | {"samples_fired": count}
