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
        vectors: number of training vectors that a run has, drawn at random: a larger number has those of a smaller one too.
            They come from the harvest of all of them, whose validation and test vectors stay. None: all.

    Raises:
        ValueError: a size below 1, fewer vectors than a batch has, or a number of vectors for online training.
    """

    size: Count = 512
    steps: Count = 1000
    seed: Seed = 0
    block_rows: Count = 64
    window_rows: Count = 262_144
    online: Online | None = None
    vectors: Count | None = None

    def __post_init__(self) -> None:
        check_ranges("activations.batches", self, {"size": "batch_size", "steps": "steps", "seed": "seed"})
        if self.vectors is None:
            return
        if self.vectors < self.size:
            raise ValueError(
                f"activations.batches.vectors={self.vectors} should be a batch or more, batch_size={self.size}, or null for all."
            )
        if self.online is not None:
            raise ValueError(
                f"activations.batches.vectors={self.vectors} is of a harvest, and online training takes vectors without end: "
                "leave one of them out."
            )
