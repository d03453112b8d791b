"""One dictionary with any of the coders, at a wanted L0: what makes units comparable like with like.

Settings of a coder (thresholds, K) are chosen so that codes of given vectors, from validation data, have the wanted mean
L0.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from atomlab.coders import calibrate_threshold_pursuit, nonnegative_omp, omp, threshold_pursuit
from atomlab.coders.fitting import sparse_code
from atomlab.sae import SAE, ThresholdSAE, rescale_thresholds_
from atomlab.sae.ops import decode_csr, encode_csr
from atomlab.sae.sparse_code import entry_rows
from atomlab.theory import AtomicInnerProduct, support_sizes
from atomlab.units.unit import Unit

CODERS = {  # their names in options, and how tables call them
    "threshold": "one-step",
    "refit": "refit",
    "threshold_pursuit": "pursuit",
    "stepwise_pursuit": "stepwise pursuit",
    "omp": "OMP",
    "nonnegative_omp": "OMP ≥ 0",
}
STAGES = 4  # of `threshold_pursuit`
_EXACT = 0.01  # relative error of the mean L0 with which a whole K is good enough


@torch.no_grad()
def coded(name: str, sae: SAE, coder: str, target_l0: float, x: Tensor, metric: AtomicInnerProduct) -> Unit:
    """Makes the unit of a dictionary and a coder, whose codes have a wanted mean L0.

    - `threshold`: the SAE's own one-step code, all thresholds times one factor (`rescale_thresholds_`). Where all
      thresholds are 0 (ReLU, TopK), one threshold for all latents takes their place.
    - `refit`: the same support with another factor, and values by non-negative least squares: a pursuit of one stage.
    - `threshold_pursuit`: a pursuit of four stages (`calibrate_threshold_pursuit`).
    - `stepwise_pursuit`: the same with as many stages as the wanted L0, to the nearest whole number, so that one atom joins
      a stage in the mean. OMP takes as many steps.
    - `omp`, `nonnegative_omp`: K steps of orthogonal matching pursuit, the same for every vector. Where whole K are too
      coarse, those vectors get a step more that gain most by it.

    All but `threshold` approximate vectors in the norm of S. Only `omp` has signed codes.

    Args:
        name: name of the dictionary; that of the unit is `<name> + <coder>`.
        sae: the dictionary, its bias and its one-step encoder.
        coder: one of `CODERS`.
        target_l0: wanted mean number of non-zero values.
        x: vectors that the coder is calibrated on, shape `(samples, d_in)`.
        metric: S.

    Returns:
        A unit with CSR codes.

    Raises:
        ValueError: an unknown coder, or a target that it does not reach on x.

    Cost: that of coding x, a few times.
    """
    label = f"{name} + {CODERS[coder]}"
    own = _one_step(sae)
    if coder == "threshold":
        rescale_thresholds_(own, x, target_l0)
        return Unit(label, own.W_dec.detach(), own.b_dec.detach(), partial(encode_csr, own), False, CODERS[coder])
    dictionary, bias = sae.W_dec.detach(), sae.b_dec.detach()
    stages = {"refit": 1, "threshold_pursuit": STAGES, "stepwise_pursuit": max(1, round(target_l0))}.get(coder)
    if stages is not None:
        pursuit = calibrate_threshold_pursuit(own, x, target_l0, stages, metric)
        encode = partial(threshold_pursuit, own, pursuit=pursuit, metric=metric)
        return Unit(label, dictionary, bias, encode, False, CODERS[coder])
    steps = _GreedySteps.at(target_l0, omp if coder == "omp" else nonnegative_omp, x - bias, dictionary, metric)
    return Unit(label, dictionary, bias, lambda v: steps.encode(v - bias), coder == "omp", CODERS[coder])


def _one_step(sae: SAE) -> ThresholdSAE:
    """A copy of the SAE's one-step code, in which z itself ranks the latents where no threshold does."""
    own = deepcopy(sae.one_step())
    if not own.threshold.any():
        own.threshold.fill_(1.0)
    return own


@final
@dataclass(frozen=True)
class _GreedySteps:
    """A greedy search of K steps, and of one more for vectors whose squared residual that lowers by more than `gain`."""

    coder: Callable[..., Tensor]
    dictionary: Tensor
    metric: AtomicInnerProduct
    k: int
    gain: float = torch.inf

    @classmethod
    def at(
        cls, l0: float, coder: Callable[..., Tensor], y: Tensor, dictionary: Tensor, metric: AtomicInnerProduct
    ) -> "_GreedySteps":
        """Chooses K and the gain so that codes of y have a mean L0, up to 1%."""
        most = min(dictionary.shape)
        if coder is omp and 1 <= round(l0) <= most and abs(round(l0) - l0) <= _EXACT * l0:
            return cls(coder, dictionary, metric, round(l0))  # all values of a least-squares fit count
        found = cls(coder, dictionary, metric, min(max(1, math.floor(l0)), most))
        codes = found.search(y, found.k)
        while found.k < most and (missing := l0 - _mean_size(codes)) > _EXACT * l0:
            more = found.search(y, found.k + 1)
            if _mean_size(more) >= l0:
                gains = found.gains(y, codes, more)
                added = (support_sizes(more) - support_sizes(codes))[gains.argsort(descending=True)].cumsum(0)
                count = min(int((added < missing * len(y)).sum()) + 1, len(y) - 1)
                return replace(found, gain=float(gains.sort(descending=True).values[count]))
            found, codes = replace(found, k=found.k + 1), more
        return found

    def search(self, y: Tensor, k: int) -> Tensor:
        return self.coder(y, self.dictionary, k, self.metric)

    def encode(self, y: Tensor) -> Tensor:
        codes = self.search(y, self.k)
        if self.gain == torch.inf:
            return codes
        more = self.search(y, self.k + 1)
        better = self.gains(y, codes, more) > self.gain
        parts = []
        for part, chosen in ((codes, ~better), (more, better)):
            rows = entry_rows(part)
            kept = chosen[rows]
            parts.append((rows[kept], part.col_indices()[kept], part.values()[kept]))
        rows, columns, values = (torch.cat(each) for each in zip(*parts, strict=True))
        return sparse_code(rows, columns, values, (len(y), len(self.dictionary)))

    def gains(self, y: Tensor, codes: Tensor, more: Tensor) -> Tensor:
        nothing = torch.zeros_like(self.dictionary[0])
        before, after = (self.metric.whiten(y - decode_csr(c, self.dictionary, nothing)) for c in (codes, more))
        return before.square().sum(1) - after.square().sum(1)


def _mean_size(codes: Tensor) -> float:
    return float(support_sizes(codes).double().mean())
