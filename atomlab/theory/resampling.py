"""How much a number would differ over other documents: the bootstrap of whole groups of vectors.

Vectors of one document are alike, so a document and not a vector is what is drawn again.
"""

import torch
from jaxtyping import Float
from scipy.special import ndtr, stdtrit
from torch import Tensor


def group_weights(groups: int, replicates: int, generator: torch.Generator) -> Float[Tensor, "replicates groups"]:
    """Draws how often each group occurs in samples of as many groups, with replacement.

    Args:
        groups: number of groups G, at least 1.
        replicates: number of samples R.
        generator: source of randomness, on the CPU.

    Returns:
        Counts of shape `(replicates, groups)`, float64; each row sums to G.

    Time and memory: O(R·G).

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (resampling of clusters).
    """
    drawn = torch.randint(groups, (replicates, groups), generator=generator)
    return torch.zeros(replicates, groups, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def bootstrap_interval(
    replicates: Float[Tensor, " replicates"], value: float, groups: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Gives the expanded percentile interval of a number from its values on resampled groups.

    Plain percentiles are too narrow where groups are few. With G groups the interval goes from the quantile α′ to the
    quantile 1 − α′ of the replicates, α′ = Φ(−√(G/(G − 1)) · t), where t is the quantile (1 + level)/2 of Student's
    distribution with G − 1 degrees of freedom and Φ the normal distribution function. For the mean of G normal values
    this is the interval of Student's t-test, up to the noise of the resampling.

    The replicates are moved first, so that their mean is the number itself. R² needs it: the variance about the mean of
    a sample of few documents is too small, so R² of such samples is too small on average.

    Args:
        replicates: values of the number, shape `(replicates,)`; NaN ones are left out.
        value: the number on the groups as they are.
        groups: number of groups G that were resampled.
        level: share of such intervals that should contain the true number.

    Returns:
        Lower and upper end, approximate, as every bootstrap interval; None for one group, or where no replicate is
        a number.

    Time: one sort of the replicates. Memory: a copy of them.

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015), section 5.2.
    """
    known = replicates[~replicates.isnan()].double()
    if groups < 2 or not len(known):
        return None
    tail = float(ndtr(-((groups / (groups - 1)) ** 0.5) * stdtrit(groups - 1, (1 + level) / 2)))
    low, high = torch.quantile(known - known.mean() + value, known.new_tensor([tail, 1 - tail])).tolist()
    return low, high
