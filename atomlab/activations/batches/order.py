"""Which vectors a training step gets: the size of the batches, their number and their order."""

from dataclasses import dataclass
from typing import final

from atomlab.activations.option_checks import check_sizes


@final
@dataclass(frozen=True)
class Online:
    """Sizes of online training, in which vectors come straight from the language model.

    Attributes:
        buffer_rows: vectors that are shuffled together, in each process.
        ahead: forward passes that may wait to enter the buffer; the language model pauses when there are as many.
    """

    buffer_rows: int = 131_072
    ahead: int = 4


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

    size: int = 512
    steps: int = 1000
    seed: int = 0
    block_rows: int = 64
    window_rows: int = 262_144
    online: Online | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.size < 1:
            raise ValueError(f"steps={self.steps} and batch_size={self.size} train nothing: use 1 or more of each.")
        check_sizes("batches", block_rows=self.block_rows, window_rows=self.window_rows)
