"""Says what training asks of its data, so that subsets and surrogates are trained by the same code as activations."""

from typing import Protocol

from torch import Tensor

from atomlab.activations.store.moments import Moments


class TrainingData(Protocol):
    """What `atomlab.training.build.build` asks of the data."""

    @property
    def d_in(self) -> int:
        """Width of the vectors."""
        ...

    @property
    def moments(self) -> Moments:
        """Moments of the training vectors."""
        ...

    @property
    def reference_moments(self) -> Moments:
        """Moments of the reference corpus, whose second moment gives the metric S."""
        ...

    def sample(self, split: str, count: int) -> Tensor:
        """Draws vectors of a split at random.

        Args:
            split: `train`, `validation` or `test`.
            count: number of vectors, at most.

        Returns:
            The vectors, (samples, d_in), samples ≤ `count`.
        """
        ...
