"""Chooses the thresholds of a pursuit, stage by stage, so that its codes have a wanted mean L0."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.fitting import UnitAtoms, fit_values, sparse_code
from atomlab.coders.threshold_pursuit import ThresholdPursuit, own_input, union
from atomlab.sae import ThresholdSAE
from atomlab.sae.sparse_code import entry_rows, take_rows
from atomlab.theory import AtomicInnerProduct
from atomlab.theory.supports import check_vectors

_CLOSE = 0.0025  # relative error of the mean L0 at which the search of a stage ends
_ALLOWED = 0.02  # relative error of the final mean L0 that is not refused
_EVALUATIONS = 40  # of one stage; every third halves the interval, so that they suffice for 2¹³ times the pairs wanted


@final
@dataclass(frozen=True)
class _Pairs:
    """Pairs of a sample and an atom that may join its support, all of shape `(pairs,)`.

    Attributes:
        scores: what is compared with the threshold of the stage; positive.
        rows: sample of each pair.
        columns: latent of each pair.
    """

    scores: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def best(cls, scores: Tensor, samples: Tensor, most: int) -> "_Pairs":
        """Takes of each row of a `(samples, d_sae)` matrix the `most` largest scores that are positive."""
        top = scores.topk(min(most, scores.shape[1]), dim=1)
        kept = top.values > 0
        return cls(top.values[kept], samples[:, None].expand_as(kept)[kept], top.indices[kept])

    @classmethod
    def falling(cls, parts: "list[_Pairs]") -> "_Pairs":
        """Joins pairs and sorts them by falling score."""
        scores, rows, columns = (
            torch.cat(v) for v in zip(*((p.scores, p.rows, p.columns) for p in parts), strict=True)
        )
        order = scores.argsort(descending=True, stable=True)
        return cls(scores[order], rows[order], columns[order])

    def level(self, count: int) -> float:
        """Returns a finite threshold that the first `count` pairs exceed and the next one does not, if their scores
        differ. Pairs with an infinite score exceed every threshold.
        """
        count = max(count, int(self.scores.isinf().sum()))
        if count == len(self.scores):
            return 0.0
        below = float(self.scores[count])
        above = float(self.scores[count - 1]) if count else torch.inf
        return 2 * below if above == torch.inf else (below + above) / 2

    def above(self, level: float, shape: tuple[int, int]) -> Tensor:
        """Returns the pairs whose score exceeds a threshold, as CSR of ones."""
        kept = self.scores > level
        rows = self.rows[kept]
        return sparse_code(rows, self.columns[kept], torch.ones_like(rows, dtype=torch.float64), shape)


@torch.no_grad()
@no_autocast()
def calibrate_threshold_pursuit(
    sae: ThresholdSAE,
    x: Float[Tensor, "samples d_in"],
    target_l0: float,
    stages: int = 2,
    metric: AtomicInnerProduct | None = None,
    *,
    most_joining: int = 128,
    block: int = 1024,
) -> ThresholdPursuit:
    """Chooses the scale of the first stage and the threshold of each later one, so that after the refit of stage s the
    mean number of non-zero values is s·target_l0/stages.

    A stage ranks all pairs of a sample and an atom that may join, by z/θ in the first stage and by the correlation in
    later ones. It then seeks the number of pairs, from the top, after whose refit the codes have the wanted L0, by the
    secant method within a shrinking interval. The threshold lies in the middle between the last pair that joins and
    the next one. A stage that falls short even with all its pairs gets the threshold 0, and later stages make up for
    it.

    Args:
        sae: a TSAE of raw activations.
        x: raw activations to calibrate on, from validation data, shape `(samples, d_in)`.
        target_l0: wanted mean number of non-zero values of the final codes, above 0 and at most d_sae.
        stages: number of stages, 1 or more.
        metric: S; None means Euclidean.
        most_joining: largest number of atoms that join a sample's support in one stage.
        block: number of samples whose correlations are computed at a time.

    Returns:
        The settings. On x the mean L0 of each stage is within 0.25% of its goal where the ranked pairs allow it: a pair
        more may change the L0 by several, and pairs with equal ranks join together. Up to rounding,
        `threshold_pursuit` has the same L0 on x.

    Raises:
        ValueError: the target or the number of stages is out of range, there are no activations or they do not fit the
            TSAE or the metric, or the final mean L0 is more than 2% from the target.

    Cost: a stage takes one product of x with the dictionary and a few refits of all samples, of 2·K²·d_in float64
    FLOPs each for a support of K atoms. Memory: a `(block, d_sae)` matrix, two copies of the dictionary, two of x and
    `(samples, most_joining)` ranked pairs.
    """
    check_vectors(x, sae.W_dec)
    if stages < 1 or not 0 < target_l0 <= sae.d_sae or not len(x):
        raise ValueError(
            f"A pursuit needs vectors, 1 stage or more and a target L0 above 0 and up to d_sae={sae.d_sae}, got {len(x)} "
            f"vectors, stages={stages} and target_l0={target_l0}."
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    atoms = UnitAtoms.of(sae.W_dec, metric, x.dtype)
    target = atoms.whiten(x - sae.b_dec.to(x))
    empty = torch.zeros(0, dtype=torch.int64, device=x.device)
    codes = sparse_code(empty, empty, empty.double(), (len(x), sae.d_sae))
    levels = []
    for stage in range(1, stages + 1):
        parts = []
        for part in torch.arange(len(x), device=x.device).split(block):
            own = stage == 1
            scores = (
                _ratios(sae, x[part])
                if own
                else _correlations(atoms, target[part], take_rows(codes, int(part[0]), int(part[-1]) + 1))
            )
            parts.append(_Pairs.best(scores, part, most_joining))
        level, codes = _level(atoms, target, codes, _Pairs.falling(parts), round(len(x) * target_l0 * stage / stages))
        levels.append(level)
    reached = len(codes.values()) / len(x)
    if abs(reached - target_l0) > _ALLOWED * target_l0:
        raise ValueError(
            f"The pursuit reaches a mean L0 of {reached:.4g} on these {len(x)} vectors and not {target_l0}: choose a "
            "target closer to it, or give more vectors, more stages or a larger most_joining."
        )
    return ThresholdPursuit(levels[0], tuple(levels[1:]), most_joining)


def _ratios(sae: ThresholdSAE, x: Tensor) -> Tensor:
    """Computes z/θ, shape `(samples, d_sae)`; infinite for θ = 0 and z > 0, and not positive for z ≤ 0."""
    z = own_input(sae, x) @ sae.W_enc + sae.b_enc
    return torch.where(z > 0, z / sae.threshold, -1)


def _correlations(atoms: UnitAtoms, target: Tensor, codes: Tensor) -> Tensor:
    """Computes the correlations of the residuals with the unit atoms, shape `(samples, d_sae)`; −1 in the support."""
    scores = atoms.residual(target, codes) @ atoms.rows.T
    scores[entry_rows(codes), codes.col_indices()] = -1
    return scores


def _level(atoms: UnitAtoms, target: Tensor, codes: Tensor, pairs: _Pairs, goal: int) -> tuple[float, Tensor]:
    """Finds the threshold after whose refit the codes have `goal` non-zero values in all, and these codes.

    The number of values after the refit rises with the number of pairs that join, up to single atoms that newcomers
    replace. `low` pairs gave too few values, `high` pairs enough.
    """
    shape = (codes.shape[0], codes.shape[1])
    total = len(pairs.scores)
    low, high = (0, len(codes.values())), (total + 1, goal)
    count, best = min(total, max(0, goal - low[1])), (torch.inf, 0.0, codes)
    for step in range(_EVALUATIONS):
        level = pairs.level(count)
        fitted = fit_values(atoms, target, union(codes, pairs.above(level, shape)))
        found = len(fitted.values())
        best = min(best, (abs(found - goal), level, fitted), key=lambda each: each[0])
        if best[0] <= _CLOSE * goal:
            break
        low, high = ((count, found), high) if found < goal else (low, (count, found))
        if high[0] - low[0] <= 1 or low[0] == total:
            break
        bracketed = high[0] <= total
        wanted = max(1, goal - low[1]) * (high[0] - low[0]) / max(1, high[1] - low[1]) if bracketed else 0.0
        if not bracketed:  # each further pair is taken to add as many values as those before
            wanted = max(1.05 * (goal - low[1]) * count / max(1, found - len(codes.values())), 0.02 * count)
        elif step % 3 == 2:
            wanted = (high[0] - low[0]) / 2
        count = min(high[0] - 1, total, max(low[0] + 1, low[0] + round(wanted)))
    return best[1], best[2]
