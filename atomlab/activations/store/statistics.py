"""Statistics of a site that are worth seeing before a TSAE is trained on it: norms, outliers and spectrum."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomlab.activations.store.activation_store import ActivationStore
from atomlab.activations.store.moments import Moments
from atomlab.activations.store.outliers import Outliers

LEVELS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)  # of the norm quantiles
_COUNTS_SHOWN = 3


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of the training rows at a hook point, all of them exact.

    Attributes:
        rows: number of rows, outliers included.
        norm_quantiles: quantiles of the Euclidean norm at `LEVELS`, outliers included; each is the norm of a row.
        outliers: number of rows whose norm is above the limit.
        outlier_positions: positions of the outliers' tokens, each with its number of outliers, most frequent first.
        outlier_tokens: token ids of the outliers, each with its number of outliers, most frequent first.
        mean_norm: Euclidean norm of the mean of the rows without outliers.
        eigenvalues: (d_in,) float64, eigenvalues of the second moment E[x xᵀ] of the rows without outliers, descending.
    """

    rows: int
    norm_quantiles: list[float]
    outliers: int
    outlier_positions: list[tuple[int, int]]
    outlier_tokens: list[tuple[int, int]]
    mean_norm: float
    eigenvalues: Tensor

    @property
    def condition_number(self) -> float:
        """λ_max / λ_min of the second moment; infinite if its smallest eigenvalue is not positive."""
        smallest = float(self.eigenvalues[-1])
        return float(self.eigenvalues[0]) / smallest if smallest > 0 else math.inf

    @property
    def effective_rank(self) -> float:
        """exp(−Σ p ln p) with p = λ / Σλ: d_in for equal eigenvalues, 1 for a single one (Roy and Vetterli 2007, def. 1)."""
        p = self.eigenvalues.clamp(min=0) / self.eigenvalues.clamp(min=0).sum()
        return float(torch.special.entr(p).sum().exp())


def site_statistics(store: ActivationStore, moments: Moments, outliers: Outliers) -> SiteStatistics:
    """Computes the statistics of a store's rows.

    Args:
        store: store of the training split.
        moments: moments of its rows without outliers.
        outliers: which rows are outliers.

    Returns:
        The statistics, all of them exact.

    Cost: O(rows·log rows + d_in³) time. Reads norms and tokens, but no activations.
    """
    ordered = store.norms.double().sort().values
    left_out = (store.norms > outliers.limit(store.norms)).nonzero().squeeze(1)
    origin = store.origins[left_out]
    return SiteStatistics(
        rows=len(store),
        norm_quantiles=[float(ordered[round(level * (len(ordered) - 1))]) for level in LEVELS],
        outliers=len(left_out),
        outlier_positions=Counter(origin.position.tolist()).most_common(),
        outlier_tokens=Counter(origin.token_id.tolist()).most_common(),
        mean_norm=float(moments.mean.norm()),
        eigenvalues=torch.linalg.eigvalsh(moments.second_moment).flip(0),
    )


def render_statistics(name: str, statistics: SiteStatistics, tokenizer: Any) -> str:
    """Writes statistics as a few lines of text to print.

    Args:
        name: name of the hook point.
        statistics: what is shown.
        tokenizer: tokenizer of the model, which turns token ids into text.

    Returns:
        Four lines, with no line break at the end.
    """
    s = statistics
    quantiles = ", ".join(f"{level:.0%} {norm:.4g}" for level, norm in zip(LEVELS, s.norm_quantiles, strict=True))
    share = float(s.eigenvalues[0] / s.eigenvalues.sum())
    return (
        f"{name}: {s.rows:,} rows of width {len(s.eigenvalues)}\n"
        f"  norm quantiles: {quantiles}; norm of the mean {s.mean_norm:.4g}\n"
        f"  outliers: {s.outliers:,}{_outliers_text(s, tokenizer)}\n"
        f"  second moment: condition number {s.condition_number:.3g}, effective rank {s.effective_rank:.1f}, "
        f"first eigenvalue {share:.1%} of the trace"
    )


def _outliers_text(s: SiteStatistics, tokenizer: Any) -> str:
    if not s.outliers:
        return ""
    positions = _counts_text(s.outlier_positions, str)
    tokens = _counts_text(s.outlier_tokens, lambda token: repr(tokenizer.decode([token])))
    return f" (positions {positions}; tokens {tokens})"


def _counts_text(counts: Sequence[tuple[int, int]], name_of: Callable[[int], str]) -> str:
    """The first few of some values with their counts."""
    return ", ".join(f"{name_of(value)} x{count}" for value, count in counts[:_COUNTS_SHOWN])
