"""Says what training asks of its data, so that subsets and surrogates are trained by the same code as activations."""

from typing import Protocol

from torch import Tensor

from atomlab.activations.store.moments import Moments


class TrainingData(Protocol):
    """What `atomlab.training.module.build` asks of the data."""

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
        """Returns at most `count` random vectors of a split (`train`, `validation`, `test`), (count, d_in).

        Args:
            split: `train`, `validation` or `test`.
            count: number of vectors; all where there are fewer.

        Returns:
            (count, d_in) float32, the same at each call.
        """
        ...
