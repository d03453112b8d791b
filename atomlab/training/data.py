"""What training asks of its data, so that subsets and surrogates train by the same code as harvested activations."""

from typing import Protocol

from torch import Tensor

from atomlab.activations.store.moments import Moments


class TrainingData(Protocol):
    """What `build` asks of the data: width, moments of the vectors and of the reference corpus, and some vectors."""

    @property
    def d_in(self) -> int: ...

    @property
    def moments(self) -> Moments: ...

    @property
    def reference_moments(self) -> Moments: ...

    def sample(self, split: str, count: int) -> Tensor: ...
