"""What is worth seeing of a site before a TSAE is trained on it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomlab.activations.store.activation_store import ActivationStore
from atomlab.activations.store.moments import Moments

LEVELS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
_SHOWN = 3


@dataclass(frozen=True)
class SiteStatistics:
    """Of the training rows at a hook point, all exact.

    Attributes:
        rows: number of rows, outliers included.
        norm_quantiles: of the Euclidean norm, outliers included, at `LEVELS`.
        outliers: number of rows whose norm is above the limit.
        outlier_positions: how many of them at each position, most frequent first.
        outlier_tokens: how many of them at each token id, most frequent first.
        mean_norm: norm of the mean of the rows without outliers.
        eigenvalues: (d_in,) float64 of the second moment E[x xᵀ] of the rows without outliers, descending.
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
        """λ_max / λ_min of the second moment; infinite if it is singular to rounding."""
        smallest = float(self.eigenvalues[-1])
        return float(self.eigenvalues[0]) / smallest if smallest > 0 else math.inf

    @property
    def effective_rank(self) -> float:
        """exp(−Σ p ln p), p = λ / Σλ (Roy and Vetterli 2007, definition 1)."""
        p = self.eigenvalues.clamp(min=0) / self.eigenvalues.clamp(min=0).sum()
        return float(torch.special.entr(p).sum().exp())


def site_statistics(store: ActivationStore, moments: Moments, max_norm_ratio: float | None) -> SiteStatistics:
    """Statistics of a store's rows.

    Args:
        store: of the training split.
        moments: of its rows without outliers.
        max_norm_ratio: rows with more than this many times the median norm are outliers (None: there are none).

    Time: O(rows log rows + d³); reads norms and tokens only.
    """
    ordered = store.norms.double().sort().values
    median = float(store.norms.median())
    outliers = (store.norms > (math.inf if max_norm_ratio is None else max_norm_ratio * median)).nonzero().squeeze(1)
    origin = store.origins[outliers]
    return SiteStatistics(
        rows=len(store),
        norm_quantiles=[float(ordered[round(level * (len(ordered) - 1))]) for level in LEVELS],
        outliers=len(outliers),
        outlier_positions=Counter(origin.position.tolist()).most_common(),
        outlier_tokens=Counter(origin.token_id.tolist()).most_common(),
        mean_norm=float(moments.mean.norm()),
        eigenvalues=torch.linalg.eigvalsh(moments.second_moment).flip(0),
    )


def render_statistics(name: str, statistics: SiteStatistics, tokenizer: Any) -> str:
    """A few lines to print."""
    s = statistics
    quantiles = ", ".join(f"{level:.0%} {norm:.4g}" for level, norm in zip(LEVELS, s.norm_quantiles, strict=True))
    share = float(s.eigenvalues[0] / s.eigenvalues.sum())
    return (
        f"{name}: {s.rows:,} rows of width {len(s.eigenvalues)}\n"
        f"  norm quantiles: {quantiles}; norm of the mean {s.mean_norm:.4g}\n"
        f"  outliers: {s.outliers:,}{_where(s, tokenizer)}\n"
        f"  second moment: condition number {s.condition_number:.3g}, effective rank {s.effective_rank:.1f}, "
        f"first eigenvalue {share:.1%} of the trace"
    )


def _where(s: SiteStatistics, tokenizer: Any) -> str:
    if not s.outliers:
        return ""
    positions = _most(s.outlier_positions, [str(position) for position, _ in s.outlier_positions[:_SHOWN]])
    tokens = _most(s.outlier_tokens, [repr(tokenizer.decode([token])) for token, _ in s.outlier_tokens[:_SHOWN]])
    return f" (positions {positions}; tokens {tokens})"


def _most(counts: Sequence[tuple[int, int]], names: Sequence[str]) -> str:
    return ", ".join(f"{name} x{count}" for name, (_, count) in zip(names, counts[:_SHOWN], strict=True))
