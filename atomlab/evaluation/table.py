"""One row of the closing table for each set of units, measured on the same activations by the same code."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from atomlab.metrics import DeadLatents, ExplainedVariance, L0Histogram, MeanL0
from atomlab.theory import (
    MARGIN,
    AtomicInnerProduct,
    coherence_certified,
    coherence_statistics,
    dual_certificates,
    first_supports,
    restricted_isometry_bounds,
    stability_pairwise,
    stability_per_atom,
    supports,
)
from atomlab.units import Unit

_LARGEST_CERTIFIED_SUPPORT = 256  # beyond it the K x K systems of level 4 dominate everything


@final
@dataclass(frozen=True)
class Protocol:
    """How many activations a table is measured on.

    Args:
        samples: training vectors and held-out vectors, each; all if there are fewer.
        isometry_samples: random supports tried for the lower bound of δ_K.
        seed: of the samples, the random atoms and the random supports.
    """

    samples: int = 4096
    isometry_samples: int = 256
    seed: int = 0


@torch.no_grad()
def measure(unit: Unit, train: Tensor, test: Tensor, metric: AtomicInnerProduct, protocol: Protocol) -> dict[str, Any]:
    """A row: R² on train and held out, everything about codes held out, everything about geometry in the metric S.

    Certified rates are over samples with K ≥ 1. Level 4 is not solved for supports beyond 256 atoms: such samples count as not certified, and
    where all are of that size (neurons) the rate is None.
    """
    row: dict[str, Any] = {"unit": unit.name, "samples": len(test), "d_sae": len(unit.dictionary)}
    dead, l0, histogram = DeadLatents(len(unit.dictionary)), MeanL0(), L0Histogram(len(unit.dictionary))
    for split, x in (("train", train), ("test", test)):
        codes = unit.encode(x)
        x_hat = unit.decode(codes)
        for key, explained in (
            (f"r2_{split}", ExplainedVariance(x.shape[1])),
            (f"r2_{split}_s", ExplainedVariance(x.shape[1], metric)),
        ):
            explained.update(x, x_hat)
            row[key] = float(explained.compute())
        if split == "train":
            dead.update(codes)
    l0.update(codes)
    histogram.update(codes)
    row["l0"], row["dead"] = float(l0.compute()), float(dead.compute())
    row |= geometry(unit, codes, histogram, metric, protocol)
    return row


def geometry(
    unit: Unit, codes: Tensor, histogram: L0Histogram, metric: AtomicInnerProduct, protocol: Protocol
) -> dict[str, Any]:
    """Coherence, both readings of q*, certified rates at levels 1 and 4 and the interval of δ_K at the median K."""
    statistics = coherence_statistics(unit.dictionary, metric, k=1)
    sizes = histogram.compute()
    values: dict[str, Any] = {
        "coherence": statistics.coherence,
        "stability_pairwise": stability_pairwise(unit.dictionary, sizes, metric, statistics=statistics),
        "stability_per_atom": stability_per_atom(unit.dictionary, sizes, metric, statistics=statistics),
        "certified_level_1": None,
        "certified_level_4": None,
        "restricted_isometry_k": None,
    }
    chosen = supports(codes)
    alive = chosen.sizes > 0
    if not alive.any():
        return values
    values["certified_level_1"] = float(coherence_certified(chosen.sizes, statistics.coherence)[alive].double().mean())
    if int(chosen.sizes.min()) <= _LARGEST_CERTIFIED_SUPPORT:
        margins = dual_certificates(
            codes, unit.dictionary, metric, one_sided=not unit.signed, largest=_LARGEST_CERTIFIED_SUPPORT
        )
        values["certified_level_4"] = float((margins[alive] < 1 - MARGIN).double().mean())
    k = max(1, histogram.quantile(0.5))
    bounds = restricted_isometry_bounds(
        unit.dictionary,
        k,
        metric,
        supports=first_supports(chosen.indices, chosen.sizes, k),
        samples=protocol.isometry_samples,
        generator=torch.Generator().manual_seed(protocol.seed),
    )
    values["restricted_isometry_k"] = {"k": k, "low": bounds.lower, "high": bounds.upper}
    return values
