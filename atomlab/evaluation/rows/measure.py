"""One row of the closing table for each set of units, measured on the same activations by the same code."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.sample_sizes import SampleSizes
from atomlab.metrics import DeadLatents, ExplainedVariance, L0Histogram
from atomlab.report import Row
from atomlab.theory import (
    LARGEST_SUPPORT,
    MARGIN,
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_certified,
    coherence_statistics,
    disagreement,
    dual_certificates,
    first_supports,
    random_dictionary,
    restricted_isometry_bounds,
    stability_pairwise,
    stability_per_atom,
    supports,
)
from atomlab.units import Unit

_LEVEL_4 = ("certified_level_4", "certified_level_4_signed")  # the same for signed codes


@torch.no_grad()
def measure(unit: Unit, train: Tensor, test: Tensor, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
    """The closing table's row: R², L0 and q* on train and held out, else all about codes held out; geometry in the metric
    S. `train` and `test` come in random order: the first of them are taken for what is dear.

    Certified rates are over samples with K ≥ 1. Level 4 is not solved for supports beyond 256 atoms: such samples count
    as not certified, and where all are of that size (neurons) the rate is None. Codes are made a batch at a time and
    not kept; `l0_counts` holds how many held-out vectors have K = 0, 1, ....
    """
    row: Row = {"unit": unit.name, "d_sae": unit.d_sae, "samples_train": len(train), "samples": len(test)}
    dead, sizes_train, sizes = DeadLatents(unit.d_sae), L0Histogram(unit.d_sae), L0Histogram(unit.d_sae)
    row |= _faithfulness(unit, train, "train", metric, (dead, sizes_train), sample_sizes.batch)
    row |= _faithfulness(unit, test, "test", metric, (sizes,), sample_sizes.batch)
    counts = sizes.compute()
    row |= {"l0": sizes.mean(), "l0_median": sizes.quantile(0.5), "l0_q998": sizes.quantile(0.998)}
    row |= {"l0_train": sizes_train.mean(), "empty": float(counts[0] / counts.sum())}
    row["l0_counts"] = counts[: int(counts.nonzero().max()) + 1].tolist()
    row |= {"dead": float(dead.compute()), "single_sample": float((dead.firing == 1).double().mean())}
    statistics = coherence_statistics(unit.dictionary, metric, k=min(unit.d_sae - 1, max(1, 2 * row["l0_q998"])))
    row |= geometry(unit, sizes, statistics, metric) | random_stability(unit, counts, sample_sizes.seed)
    row["stability_pairwise_train"] = stability_pairwise(
        unit.dictionary, sizes_train.compute(), metric, statistics=statistics
    )
    codes = unit.encode(test[: sample_sizes.certified])
    return row | _quick_certificates(unit, codes, sizes, statistics.coherence_bound, metric, sample_sizes)


@torch.no_grad()
def on_validation(unit: Unit, data: ActivationDataModule, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
    """R² in the S-norm on `sample_sizes.measured` validation vectors, `r2_validation_s`: what objectives and choices go by, so
    that held-out vectors serve no choice. With as many of them it is train.py's `validation/r2_s_norm`, over the same
    vectors.
    """
    return {
        "r2_validation_s": explained(unit, data.sample("validation", sample_sizes.measured), metric, sample_sizes.batch)
    }


@torch.no_grad()
def explained(unit: Unit, vectors: Tensor, metric: AtomicInnerProduct, batch: int) -> float:
    """R² in the S-norm."""
    found = ExplainedVariance(vectors.shape[1], metric)
    for x in vectors.split(batch):
        found.update(x, unit.reconstruct(x))
    return float(found.compute())


def _faithfulness(
    unit: Unit,
    vectors: Tensor,
    split: str,
    metric: AtomicInnerProduct,
    firing: Sequence[DeadLatents | L0Histogram],
    batch: int,
) -> Row:
    """R² in three norms; the split's codes go to `firing` too."""
    d_in = vectors.shape[1]
    explained = {"": ExplainedVariance(d_in), "_s": ExplainedVariance(d_in, metric)}
    squares, errors = 0.0, 0.0
    for x in vectors.split(batch):
        codes = unit.encode(x)
        x_hat = unit.decode(codes)
        for measure_ in explained.values():
            measure_.update(x, x_hat)
        for counted in firing:
            counted.update(codes)
        squares += float(x.double().square().sum())
        errors += float((x.double() - x_hat.double()).square().sum())
    row: Row = {f"r2_{split}{norm}": float(measure_.compute()) for norm, measure_ in explained.items()}
    return row | {f"r2_{split}_uncentred": 1 - errors / squares}


def geometry(unit: Unit, sizes: L0Histogram, statistics: CoherenceStatistics, metric: AtomicInnerProduct) -> Row:
    """Coherence over all pairs, both readings of q*, and how far S is from the metric that the atoms themselves give."""
    counts, k = sizes.compute(), max(1, sizes.quantile(0.5))
    return {
        "coherence": statistics.coherence,
        "coherence_median": float(statistics.per_atom.median()),
        "babel": {"k": k, "value": float(statistics.babel[min(k, len(statistics.babel)) - 1])},
        "pair_q50": statistics.pair_quantile(0.5),
        "pair_q99": statistics.pair_quantile(0.99),
        "pair_q999": statistics.pair_quantile(0.999),
        "stability_pairwise": stability_pairwise(unit.dictionary, counts, metric, statistics=statistics),
        "stability_per_atom": stability_per_atom(unit.dictionary, counts, metric, statistics=statistics),
        "metric_disagreement": metric_disagreement(unit.dictionary, metric),
    }


def metric_disagreement(dictionary: Tensor, metric: AtomicInnerProduct) -> float | None:
    """`disagreement` of S with the paper's other definition, (W_decᵀ W_dec)⁻¹ (theory.md 1); None for atoms that do not
    span the space, which have no such metric. Time: 2·d_sae·d_in² FLOPs and O(d_in³), float64.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an ill-conditioned metric does to float32: this is float64
            of_atoms = AtomicInnerProduct.from_dictionary(dictionary)
    except ValueError:
        return None
    return disagreement(metric, of_atoms)


def random_stability(unit: Unit, counts: Tensor, seed: int) -> Row:
    """q* of as many independent random atoms at the unit's own L0: what q* says without any structure."""
    dictionary = random_dictionary(unit.d_sae, unit.dictionary.shape[1], torch.Generator().manual_seed(seed))
    statistics = coherence_statistics(dictionary, k=1)
    return {
        "stability_pairwise_random": stability_pairwise(dictionary, counts, statistics=statistics),
        "stability_per_atom_random": stability_per_atom(dictionary, counts, statistics=statistics),
    }


def _quick_certificates(
    unit: Unit,
    codes: Tensor,
    histogram: L0Histogram,
    coherence_bound: float,
    metric: AtomicInnerProduct,
    sample_sizes: SampleSizes,
) -> Row:
    """Rates at levels 1 (all samples) and 4 (`certified_samples`), and the interval of δ_K at the median K.

    Level 4 in two ways: of the unit's own problem (non-negative codes: among these), and among codes of any sign, which
    is the harder one and compares rows of either kind.
    """
    counts = histogram.compute()
    certified = coherence_certified(torch.arange(len(counts)), coherence_bound)
    alive = int(counts[1:].sum())
    chosen = supports(codes)
    with_atoms = chosen.sizes > 0
    row: Row = dict.fromkeys((*_LEVEL_4, "restricted_isometry_k"))
    row |= {"samples_certified": int(with_atoms.sum())}
    row["certified_level_1"] = float(counts[certified].sum() / alive) if alive else None
    if not with_atoms.any():
        return row
    if int(chosen.sizes[with_atoms].min()) <= LARGEST_SUPPORT:
        for one_sided in (False,) if unit.signed else (False, True):
            margins = dual_certificates(codes, unit.dictionary, metric, one_sided=one_sided, largest=LARGEST_SUPPORT)
            share = float((margins[with_atoms] < 1 - MARGIN).double().mean())
            row |= {"certified_level_4": share} if one_sided else dict.fromkeys(_LEVEL_4, share)
    k = max(1, histogram.quantile(0.5))
    row["restricted_isometry_k"] = isometry_interval(unit, k, metric, sample_sizes, codes)
    return row


def isometry_interval(unit: Unit, k: int, metric: AtomicInnerProduct, sample_sizes: SampleSizes, codes: Tensor) -> Row:
    """The interval of δ_K, with the codes' own supports of that size among those tried."""
    chosen = supports(codes)
    bounds = restricted_isometry_bounds(
        unit.dictionary,
        k,
        metric,
        supports=first_supports(chosen.indices, chosen.sizes, k),
        samples=sample_sizes.supports,
        generator=torch.Generator().manual_seed(sample_sizes.seed),
    )
    return {"k": k, "low": bounds.lower, "high": bounds.upper}
