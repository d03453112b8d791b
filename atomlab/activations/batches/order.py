"""Which vectors a training step gets: the size of the batches, their number and their order."""

from dataclasses import dataclass
from typing import final

from atomlab.ranges import Count, Seed, check_ranges


@final
@dataclass(frozen=True)
class Online:
    """Sizes of online training, in which vectors come straight from the language model.

    Attributes:
        buffer_rows: vectors that are shuffled together, in each process.
        ahead: forward passes that may wait to enter the buffer; the language model pauses when there are as many.
    """

    buffer_rows: Count = 131_072
    ahead: Count = 4

    def __post_init__(self) -> None:
        check_ranges("activations.batches.online", self)


@final
@dataclass(frozen=True)
class TrainingBatches:
    """Size, number and order of the training batches.

    Attributes:
        size: vectors of a batch, over all processes.
        steps: steps of the optimiser. Each takes as many batches as the trainer's `accumulate_grad_batches`.
        seed: of the order.
        block_rows: neighbouring rows of the cache that are read together (`ShuffledBatches`).
        window_rows: rows within which single rows are shuffled (`ShuffledBatches`).
        online: train on vectors straight from the language model, over the corpus without its held-out groups again and
            again. Calibration, validation, test and moments still use the cache. None trains from the cache.

    Raises:
        ValueError: a size below 1.
    """

    size: Count = 512
    steps: Count = 1000
    seed: Seed = 0
    block_rows: Count = 64
    window_rows: Count = 262_144
    online: Online | None = None

    def __post_init__(self) -> None:
        check_ranges("activations.batches", self, {"size": "batch_size", "steps": "steps", "seed": "seed"})
