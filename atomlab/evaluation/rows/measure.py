"""One row of the closing table for each set of units: which vectors are measured, by which metrics, under which names.

Every number is that of `atomlab.metrics.by_name`. Plain functions of a dictionary alone (the Babel function at one size,
the disagreement of two inner products) are called from the theory, since nothing streams.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.norm_bands import NormBands
from atomlab.metrics import CertifiedRate, ExplainedVariance
from atomlab.metrics.by_name import AtomGeometry, of_codes, of_reconstructions, of_vectors, restricted_isometry, values
from atomlab.metrics.group_bootstrap import GroupBootstrap
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row
from atomlab.sae.sparse_code import take_rows
from atomlab.theory import (
    LARGEST_SUPPORT,
    AtomicInnerProduct,
    Supports,
    babel_function,
    bootstrap_interval,
    disagreement,
    per_atom_coherence,
    supports,
)
from atomlab.units import Unit

_LEVEL_4 = ("certified_level_4", "certified_level_4_signed")  # the same for signed codes
_SIZES = ("l0", "l0_median", "l0_q998", "empty", "certified_level_1")
_STABILITY = ("stability_pairwise", "stability_per_atom")
_Coded = tuple[Tensor, list[tuple[int, slice]]]  # codes of some vectors, and for each group where its vectors are
Replicates = dict[str, Tensor]  # a number on each of some samples of the held-out documents, by its name


@torch.no_grad()
def measure(
    unit: Unit, train: Tensor, test: HeldOut, metric: AtomicInnerProduct, sample_sizes: SampleSizes
) -> tuple[Row, Replicates]:
    """Measures the row of one set of units in the closing table.

    Numbers without a suffix are of held-out vectors, those that end in `_train` of training vectors. Level 1 is over
    all held-out vectors; level 4, by far dearer, and the data's own supports in δ_K are over the first
    `sample_sizes.certified` of them. Codes with K = 0 count in no certified rate. Where every support is beyond 256
    atoms (neurons), level 4 is not measured and its rate is None.

    Args:
        unit: Dictionary and encoder.
        train: (samples, d_in) training vectors in random order.
        test: Held-out vectors in random order, with their documents.
        metric: S.
        sample_sizes: Sample sizes, and the seed of random atoms, supports and resampled documents.

    Returns:
        The row, and the replicates of `r2` and `r2_s`. In the row `l0_counts` holds how many held-out vectors have K =
        0, 1, ..., and `<name>_interval` the 95% interval of a number over other documents (`intervals`).

    Cost: two passes over the vectors, d_in·d_sae² FLOPs a few times, level 4, and the numbers of `sample_sizes.resampled`
    samples of documents. Memory: codes of one batch, and two float64 copies of the dictionary.
    """
    geometry = AtomGeometry.of(unit.dictionary, metric)
    random = AtomGeometry.random(unit.dictionary, torch.Generator().manual_seed(sample_sizes.seed))
    d_in, batch = unit.dictionary.shape[1], sample_sizes.batch
    fit, fit_codes = (
        of_reconstructions(d_in, metric, "_train"),
        of_codes(("l0", "stability_pairwise"), geometry, suffix="_train"),
    )
    for x in train.split(batch):
        codes = unit.encode(x)
        fit.update(x, unit.decode(codes))
        fit_codes.update(codes)
    held_out = GroupBootstrap(of_reconstructions(d_in, metric), test.count)
    of_sizes = GroupBootstrap(of_codes((*_SIZES, *_STABILITY), geometry), test.count)
    by_chance = of_codes(_STABILITY, random, suffix="_random")
    shares = of_vectors(test.vectors.mean(0), metric)
    bands = NormBands(test.vectors, metric)
    certified, coded = test.first(sample_sizes.certified), []
    for vectors in (certified, test.after(len(certified))):
        for x, groups in vectors.batches(batch):
            codes = unit.encode(x)
            x_hat = unit.decode(codes)
            if vectors is certified:
                coded.append((codes, groups))
            for group, part in groups:
                held_out.update(group, x[part], x_hat[part])
                of_sizes.update(group, take_rows(codes, part.start, part.stop))
            by_chance.update(codes)
            shares.update(x, x_hat)
            bands.update(x, x_hat)
    row: Row = {"unit": unit.name, "coder": unit.coder, "signed": unit.signed, "d_sae": unit.d_sae}
    row |= {"samples_train": len(train), "samples": len(test), "samples_documents": test.documents}
    for collection in (fit, fit_codes, by_chance, shares):
        row |= values(collection)
    found, replicates = intervals(held_out, ("r2", "r2_s"), sample_sizes)
    row |= found | intervals(of_sizes, ("l0", "certified_level_1"), sample_sizes)[0] | {"bands": bands.rows()}
    if math.isnan(row["certified_level_1"]):
        row["certified_level_1"] = None
    counts = of_sizes.metrics["l0"].counts
    assert isinstance(counts, Tensor)
    row["l0_counts"] = counts[: int(counts.nonzero().max()) + 1].tolist()
    row |= geometry.numbers | {"babel": _babel(unit, geometry, max(1, row["l0_median"]), metric)}
    row |= euclidean_coherence(unit.dictionary)
    row["metric_disagreement"] = metric_disagreement(unit.dictionary, metric)
    return row | _quick_certificates(unit, coded, test.count, row, geometry, sample_sizes), replicates


def intervals(measured: GroupBootstrap, names: Sequence[str], sample_sizes: SampleSizes) -> tuple[Row, Replicates]:
    """Computes the numbers of a collection, some of them with their intervals over other documents.

    Args:
        measured: the metrics, updated.
        names: numbers that get a 95% interval (`bootstrap_interval`).
        sample_sizes: number and seed of the resampled documents.

    Returns:
        All numbers, and `<name>_interval` with the ends `low` and `high`, None where there is no interval; and the
        replicates of the named numbers.
    """
    row: Row = measured.whole()
    replicates = measured.replicates(names, sample_sizes.resampled, sample_sizes.seed)
    for name, values_of_samples in replicates.items():
        row[f"{name}_interval"] = interval(values_of_samples, row[name], measured.groups)
    return row, replicates


def interval(replicates: Tensor, value: float, groups: int) -> Row | None:
    """Gives the 95% interval of a number as `low` and `high`; None where there is none (`bootstrap_interval`)."""
    ends = bootstrap_interval(replicates, value, groups)
    return None if ends is None else {"low": ends[0], "high": ends[1]}


@torch.no_grad()
def on_validation(unit: Unit, data: ActivationDataModule, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
    """Measures `r2_s_validation`, the R² in the S-norm on `sample_sizes.measured` validation vectors.

    Objectives and choices go by it, so that held-out vectors serve no choice. It is train.py's `validation/r2_s`.

    Args:
        unit: Dictionary and encoder.
        data: The activations, set up.
        metric: S.
        sample_sizes: Number of vectors, and how many are encoded at a time.

    Returns:
        `r2_s_validation`, exact for these vectors.
    """
    vectors = data.sample("validation", sample_sizes.measured)
    return {"r2_s_validation": explained(unit, vectors, metric, sample_sizes.batch)}


@torch.no_grad()
def explained(unit: Unit, vectors: Tensor, metric: AtomicInnerProduct, batch: int) -> float:
    """Measures the R² of a unit's reconstructions in the S-norm.

    Args:
        unit: Dictionary and encoder.
        vectors: (samples, d_in).
        metric: S.
        batch: Number of vectors that are encoded at a time.

    Returns:
        R², at most 1, exact for these vectors.
    """
    found = ExplainedVariance(vectors.shape[1], metric)
    for x in vectors.split(batch):
        found.update(x, unit.reconstruct(x))
    return found.compute().item()


def _babel(unit: Unit, geometry: AtomGeometry, k: int, metric: AtomicInnerProduct) -> Row:
    """μ₁(K), from the curve that there is or else computed."""
    curve, largest = geometry.coherence.babel, min(k, unit.d_sae - 1)
    known = largest <= len(curve)
    return {"k": k, "value": float(curve[largest - 1]) if known else babel_function(unit.dictionary, largest, metric)}


def euclidean_coherence(dictionary: Tensor) -> Row:
    """Computes coherence in the Euclidean norm, beside that in S.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.

    Returns:
        `coherence_euclidean`, the largest |cos| of two atoms, and `coherence_euclidean_mean`, the mean over atoms of the
        largest |cos| with another one.

    Time: d_in·d_sae² FLOPs.
    """
    found = per_atom_coherence(dictionary)
    return {
        "coherence_euclidean": float(found.max()),
        "coherence_euclidean_mean": float(found.double().mean()),
    }


def metric_disagreement(dictionary: Tensor, metric: AtomicInnerProduct) -> float | None:
    """Computes how far S is from the paper's other definition, (W_decᵀ W_dec)⁻¹ (theory.md 1).

    Args:
        dictionary: (d_sae, d_in) atoms.
        metric: S.

    Returns:
        `disagreement`, in [0, 1]; None for atoms that do not span the space, which have no such inner product.

    Time: 2·d_sae·d_in² FLOPs and O(d_in³), float64; memory O(d_in²) and a float64 copy of the dictionary.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an ill-conditioned metric does to float32: this is float64
            of_atoms = AtomicInnerProduct.from_dictionary(dictionary)
    except ValueError:
        return None
    return disagreement(metric, of_atoms)


def _quick_certificates(
    unit: Unit, coded: Sequence[_Coded], count: int, row: Row, geometry: AtomGeometry, sample_sizes: SampleSizes
) -> Row:
    """Level 4, of the unit's own problem and among codes of any sign, and the interval of δ_K at the median K."""
    own = [supports(codes) for codes, _ in coded]
    sizes = torch.cat([chosen.sizes for chosen in own])
    alive = sizes[sizes > 0]
    found: Row = dict.fromkeys((*_LEVEL_4, "restricted_isometry_k")) | {"samples_certified": len(alive)}
    if len(alive) == 0:
        return found
    if int(alive.min()) <= LARGEST_SUPPORT:
        names = _LEVEL_4[1:] if unit.signed else _LEVEL_4
        level_4 = GroupBootstrap(of_codes(names, geometry, signed=unit.signed), count)
        for codes, groups in coded:
            for group, part in groups:
                level_4.update(group, take_rows(codes, part.start, part.stop))
        rates = intervals(level_4, names, sample_sizes)[0]
        if unit.signed:  # the unit's own problem is the one among codes of any sign
            rates |= {key.replace("_signed", ""): value for key, value in rates.items()}
        found |= rates | {"level_4_by_k": _by_k(level_4.metrics[names[0]], int(sizes.max()))}
    k = max(1, row["l0_median"])
    return found | {"restricted_isometry_k": isometry_interval(geometry, k, own, sample_sizes)}


def _by_k(measured: object, largest: int) -> Row:
    """Numbers of vectors and certified shares by support size from 0; a size without vectors has the share 0."""
    assert isinstance(measured, CertifiedRate)
    end = min(largest, LARGEST_SUPPORT) + 1
    return {"samples": measured.counts.tolist()[:end], "rate": measured.by_size().nan_to_num()[:end].tolist()}


def isometry_interval(geometry: AtomGeometry, k: int, own: Sequence[Supports], sample_sizes: SampleSizes) -> Row:
    """Bounds the restricted isometry constant δ_K from both sides.

    Args:
        geometry: Of the dictionary.
        k: K.
        own: Supports of codes, of which those of K atoms are tried too.
        sample_sizes: Number and seed of the random supports.

    Returns:
        `k`, and the bounds `low` and `high`.
    """
    return {"k": k} | restricted_isometry(geometry, k, own, samples=sample_sizes.supports, seed=sample_sizes.seed)
