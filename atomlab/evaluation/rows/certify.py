"""The dear part of a row: certificates at all levels, isometry verdicts, and identifiability.

Every number is that of a metric. Plain functions of a dictionary alone (the curve of δ_K) and of training vectors (the
encoder's thresholds) are called from the theory, since nothing streams.
"""

import torch
from torch import Tensor

from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import intervals, isometry_interval
from atomlab.metrics import CertifiedRate, ExplainedVariance, RefittedExplainedVariance, UniformlyCertifiedRate
from atomlab.metrics.by_name import AtomGeometry, flat, of_codes, of_encoder, of_isometry, values
from atomlab.metrics.group_bootstrap import GroupBootstrap
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row
from atomlab.theory import (
    LARGEST_SUPPORT,
    AtomicInnerProduct,
    restricted_isometry_curve,
    shared_thresholds,
    support_sizes,
    supports,
)
from atomlab.units import Unit

LEVELS = {
    "coherence": "certified_level_1",
    "babel_unique": "certified_level_2a",
    "babel_recovery": "certified_level_2b",
    "exact_recovery": "certified_level_3",
    "dual_certificate": "certified_level_4",
    "solved": "solved_level_5",
}
_SIGNED = "certified_level_4_signed"
_LONGEST_CURVE = 512


@torch.no_grad()
def certify(
    unit: Unit, row: Row, train: Tensor, test: HeldOut, metric: AtomicInnerProduct, sample_sizes: SampleSizes
) -> Row:
    """Adds to a row what is too dear for train.py's closing table, over the first `sample_sizes.certified` vectors.

    Args:
        unit: Dictionary and encoder.
        row: Of `measure`.
        train: (samples, d_in) training vectors in random order, of which the encoder's thresholds are.
        test: Held-out vectors in random order, with their documents.
        metric: S.
        sample_sizes: Sample sizes, and the seed of the random supports and the resampled documents.

    Returns:
        The row with more numbers, the rates with their intervals. Units whose every support is beyond 256 atoms
        (neurons) get none: the systems would be singular or hopeless. Units with signed codes get no identifiability.

    Cost: one linear programme for each of the first `sample_sizes.solved` vectors that level 4 does not certify, then
    levels 3 and 4. Memory: the certified codes, dense, and two float64 copies of the dictionary.
    """
    test = test.first(sample_sizes.certified)
    codes = unit.encode(test.vectors).to_dense()
    sizes = support_sizes(codes)
    if not (sizes > 0).any() or int(sizes[sizes > 0].min()) > LARGEST_SUPPORT:
        return row
    geometry = AtomGeometry.of(unit.dictionary, metric)
    row = row | _levels(unit, codes, test, geometry, sample_sizes) | _isometry(codes, row, geometry, sample_sizes)
    if unit.signed:
        return row
    return row | _identifiability(unit, codes, (train[: len(codes)], test.vectors), metric, geometry)


def _levels(unit: Unit, codes: Tensor, test: HeldOut, geometry: AtomGeometry, sample_sizes: SampleSizes) -> Row:
    """Rates at all levels, whole and by K; level 5 on the first `sample_sizes.solved` vectors."""
    cheap = [name for key, name in LEVELS.items() if key != "solved"] + [_SIGNED]
    rates = GroupBootstrap(of_codes(cheap, geometry, signed=unit.signed), test.count)
    solved = GroupBootstrap(of_codes([LEVELS["solved"]], geometry, signed=unit.signed), test.count)
    for measured, own, groups in (
        (rates, codes, test.groups),
        (solved, codes[: sample_sizes.solved], test.groups[: sample_sizes.solved]),
    ):
        for group in groups.unique().tolist():
            measured.update(group, own[groups == group])
    whole = intervals(rates, cheap, sample_sizes)[0] | intervals(solved, [LEVELS["solved"]], sample_sizes)[0]
    for name in ("certified_level_1", "certified_level_1_interval"):
        del whole[name]  # `measure` has it over all vectors
    by_size = rates.metrics | solved.metrics
    end = int(support_sizes(codes).max()) + 1
    by_k: Row = {"samples": _counts(by_size["certified_level_1"])[:end]}
    by_k["samples_solved"] = _counts(by_size[LEVELS["solved"]])[:end]
    for name, measured in by_size.items():
        assert isinstance(measured, CertifiedRate | UniformlyCertifiedRate)
        by_k[name] = measured.by_size()[:end].tolist()
    return whole | {"samples_solved": sum(by_k["samples_solved"][1:]), "by_k": by_k}


def _counts(measured: object) -> list[int]:
    assert isinstance(measured, CertifiedRate | UniformlyCertifiedRate)
    return measured.counts.tolist()


def _isometry(codes: Tensor, row: Row, geometry: AtomGeometry, sample_sizes: SampleSizes) -> Row:
    """δ_2K at the row's K; over vectors, whether δ_2K < 1 (unique sparsest) and < 1/√2 (ℓ1 exact); the codes' own."""
    k = max(1, row["l0_median"])
    generator = torch.Generator().manual_seed(sample_sizes.seed)
    longest = min(2 * int(support_sizes(codes).max()), _LONGEST_CURVE)
    curve = restricted_isometry_curve(geometry.white, longest, generator=generator)
    verdicts = of_isometry(curve, len(geometry.white))
    own = of_codes(["isometry_ratio", "isometry_own"], geometry)
    for collection in (verdicts, own):
        collection.update(codes)
    found: Row = values(own)
    found["isometry_ratio"] = {"k": k} | found["isometry_ratio"]
    doubled = min(2 * k, *geometry.white.shape)
    return {
        "isometry_curve": {"lower": curve.lower.tolist(), "upper": curve.upper.tolist()},
        "restricted_isometry_2k": isometry_interval(geometry, doubled, [supports(codes)], sample_sizes),
        **values(verdicts),
        **found,
    }


def _identifiability(
    unit: Unit, codes: Tensor, vectors: tuple[Tensor, Tensor], metric: AtomicInnerProduct, geometry: AtomGeometry
) -> Row:
    """Theory.md 6, thresholds chosen on as many training vectors; R² in the S-norm before and after the refit."""
    fit, x = vectors
    thresholds = shared_thresholds(fit - unit.bias, unit.encode(fit), unit.dictionary, metric)
    a_priori, encoder = of_codes(["identifiable_a_priori"], geometry), of_encoder(unit.dictionary, thresholds, metric)
    before = ExplainedVariance(x.shape[1], metric)
    after = RefittedExplainedVariance(unit.dictionary, unit.bias, metric)
    a_priori.update(codes)
    encoder.update(x - unit.bias, codes)
    before.update(x, unit.decode(codes))
    after.update(x, codes)
    refit = {"r2_s_before_refit": before.compute().item(), "r2_s_after_refit": after.compute().item()}
    return values(a_priori) | flat(values(encoder)) | refit
