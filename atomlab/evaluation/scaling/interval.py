"""A fitted number with its bootstrap interval, and what a fit answers where there are too few cells."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_LEVEL = 0.95


class Estimate(NamedTuple):
    """A fitted number and its 95% interval.

    Attributes:
        value: of the fit.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def row(self) -> dict[str, float]:
        """Returns the estimate as a cell of a table has it."""
        return {"value": self.value, "low": self.low, "high": self.high}


class NotEnoughCells(NamedTuple):
    """The answer of a fit that cannot be made.

    Attributes:
        sentence: what there is, and what was needed.
    """

    sentence: str


def estimate(value: float, draws: NDArray[np.float64], freedom: int) -> Estimate:
    """Makes the 95% interval of a fitted number from its bootstrap draws.

    The ends are expanded percentiles (Hesterberg 2015, What Teachers Should Know About the Bootstrap, The American
    Statistician 69): the percentiles Φ(∓t), t the 97.5% quantile of Student's distribution with `freedom` degrees of freedom,
    since plain percentiles of few cells are too narrow. With one or two degrees of freedom they are the smallest and the
    largest draw, and still too narrow.

    Args:
        value: of the fit itself.
        draws: values of the fits to resampled cells, `(draws,)`; those that are not finite are left out.
        freedom: number of fitted cells less the number of fitted numbers, at least 1.

    Returns:
        The estimate, whose interval holds `value`.
    """
    share = float(stats.norm.cdf(stats.t.ppf((1 - _LEVEL) / 2, freedom)))
    found = draws[np.isfinite(draws)]
    if len(found) == 0:
        return Estimate(value, -math.inf, math.inf)
    low, high = np.quantile(found, [share, 1 - share])
    return Estimate(value, min(float(low), value), max(float(high), value))


def spread(residuals: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
    """Scales the residuals of a fit to the spread of the noise, and centres them, for a bootstrap of residuals.

    A fit takes away a part of the noise: the factor √(cells / freedom) gives it back.

    Args:
        residuals: of the fitted cells, `(cells,)`.
        freedom: number of cells less the number of fitted numbers, at least 1.

    Returns:
        The scaled residuals, `(cells,)`.
    """
    return (residuals - residuals.mean()) * math.sqrt(len(residuals) / freedom)
