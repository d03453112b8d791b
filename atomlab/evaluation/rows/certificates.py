"""The dear part of a row: all levels, isometry verdicts, identifiability."""

import torch
from torch import Tensor

from atomlab.evaluation.rows.measure import isometry_interval
from atomlab.evaluation.sample_sizes import SampleSizes
from atomlab.metrics import ExplainedVariance
from atomlab.report import Row
from atomlab.theory import (
    LARGEST_SUPPORT,
    MARGIN,
    STABLE_THRESHOLD,
    UNIQUE_THRESHOLD,
    AtomicInnerProduct,
    dual_certificates,
    empirical_isometry,
    rate,
    rate_by_size,
    reconstruct,
    recovery_levels,
    refit_codes,
    restricted_isometry_curve,
    shared_thresholds,
    solved_recovery,
    support_recovery,
    supports,
    threshold_windows,
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
_LONGEST_CURVE = 512


@torch.no_grad()
def certify(
    unit: Unit, row: Row, train: Tensor, test: Tensor, metric: AtomicInnerProduct, sample_sizes: SampleSizes
) -> Row:
    """`row` of `measure` with everything that is too dear for train.py's closing table.

    Units whose every support is beyond 256 atoms (neurons) get no levels and no verdicts: the systems would be singular
    or hopeless.
    """
    codes = unit.encode(test[: sample_sizes.certified]).to_dense()
    sizes = supports(codes).sizes
    if not (sizes > 0).any() or int(sizes[sizes > 0].min()) > LARGEST_SUPPORT:
        return row
    k = max(1, row["l0_median"])
    row = row | _levels(unit, codes, metric, sample_sizes) | _isometry(unit, codes, k, metric, sample_sizes)
    return row if unit.signed else row | _identifiability(unit, codes, train, test, metric, sample_sizes)


def _levels(unit: Unit, codes: Tensor, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
    """Rates at all levels, whole and by K; level 5 on `solved_samples`, solved only where level 4 does not imply it."""
    found = recovery_levels(
        codes, unit.dictionary, metric, one_sided=not unit.signed, solve=False, largest=LARGEST_SUPPORT
    )
    part = codes[: sample_sizes.solved]
    solved = found.dual_certificate[: len(part)].clone()
    unknown = (~solved).nonzero().squeeze(1)
    solved[unknown] = solved_recovery(part[unknown], unit.dictionary, metric, nonnegative=not unit.signed)
    row: Row = {LEVELS[name]: share for name, share in found.rates().items()}
    del row["certified_level_1"]  # the closing table has it over all samples
    sizes = found.sizes[: len(part)]
    row |= {"samples_solved": int((sizes > 0).sum()), LEVELS["solved"]: rate(solved, sizes)}
    counts, counts_solved = torch.bincount(found.sizes), torch.bincount(sizes, minlength=int(found.sizes.max()) + 1)
    by_k = {LEVELS[name]: rates.tolist() for name, rates in found.rates_by_size().items()}
    signed = found.dual_certificate
    if not unit.signed:
        signed = (
            dual_certificates(codes, unit.dictionary, metric, one_sided=False, largest=LARGEST_SUPPORT) < 1 - MARGIN
        )
    by_k["certified_level_4_signed"] = rate_by_size(signed, found.sizes).tolist()
    by_k[LEVELS["solved"]] = (torch.bincount(sizes, solved.double(), len(counts)) / counts_solved).tolist()
    return row | {"by_k": {"samples": counts.tolist(), "samples_solved": counts_solved.tolist(), **by_k}}


def _isometry(unit: Unit, codes: Tensor, k: int, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
    """δ_2K at the row's K; over samples, whether δ_2K < 1 (unique sparsest) and < 1/√2 (ℓ1 exact); the codes' own."""
    sizes = supports(codes).sizes
    alive = sizes > 0
    curve = restricted_isometry_curve(
        unit.dictionary,
        min(2 * int(sizes.max()), _LONGEST_CURVE),
        metric,
        generator=torch.Generator().manual_seed(sample_sizes.seed),
    )
    row: Row = {"isometry_curve": {"lower": curve.lower.tolist(), "upper": curve.upper.tolist()}}
    doubled = min(2 * k, *unit.dictionary.shape)
    row["restricted_isometry_2k"] = isometry_interval(unit, doubled, metric, sample_sizes, codes)
    for name, threshold in (("unique", UNIQUE_THRESHOLD), ("stable", STABLE_THRESHOLD)):
        verdicts = vars(curve.verdicts(sizes, threshold))
        row[f"isometry_{name}"] = {key: float(holds[alive].double().mean()) for key, holds in verdicts.items()}
    own = empirical_isometry(codes, unit.dictionary, metric, largest=LARGEST_SUPPORT)
    low, high = own.ratio[alive].quantile(torch.tensor([0.01, 0.99], dtype=torch.float64)).tolist()
    return row | {"isometry_ratio": {"k": k, "low": low, "high": high}, "isometry_own": float(own.constant.nanmedian())}


def _identifiability(
    unit: Unit, codes: Tensor, train: Tensor, test: Tensor, metric: AtomicInnerProduct, sample_sizes: SampleSizes
) -> Row:
    """Theory.md 6, thresholds chosen on as many training vectors; R² in the S-norm before and after the refit."""
    x, fit = test[: len(codes)], train[: sample_sizes.certified]
    alive = supports(codes).sizes > 0
    windows = threshold_windows(codes, unit.dictionary, metric)
    thresholds = shared_thresholds(fit - unit.bias, unit.encode(fit), unit.dictionary, metric)
    recovered = support_recovery(x - unit.bias, codes, unit.dictionary, thresholds, metric)
    refitted = reconstruct(refit_codes(x - unit.bias, codes, unit.dictionary, metric), unit.dictionary) + unit.bias
    rates = {
        "identifiable_a_priori": windows.feasible,
        "identifiable_shared": recovered.shared,
        "identifiable_oracle": recovered.oracle,
    }
    row: Row = {name: float(holds[alive].double().mean()) for name, holds in rates.items()}
    for name, x_hat in (("before", unit.decode(codes)), ("after", refitted)):
        explained = ExplainedVariance(x.shape[1], metric)
        explained.update(x, x_hat)
        row[f"r2_s_{name}_refit"] = float(explained.compute())
    return row
