"""Which vectors are left out because their norm is far above all others'."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from atomlab.ranges import Ratio, check_ranges


@final
@dataclass(frozen=True)
class Outliers:
    """The rule by which vectors of very large norm are left out.

    Attributes:
        max_norm_ratio: a vector is left out if its Euclidean norm is above this many times the median norm of the
            training vectors; None keeps all. With 1 or more at least half of the vectors stay, whatever they are.

    Raises:
        ValueError: a ratio below 1.
    """

    max_norm_ratio: Ratio | None = 10.0

    def __post_init__(self) -> None:
        check_ranges("activations.outliers", self)

    def limit(self, train_norms: Tensor) -> float:
        """Returns the largest norm that is kept, given the norms (rows,) of all training vectors."""
        return float("inf") if self.max_norm_ratio is None else self.max_norm_ratio * float(train_norms.median())
