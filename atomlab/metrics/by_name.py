"""Which metric computes each named number, for the rows of tables and for the dashboard of a validation alike.

A name means one computation. In a row a name without a suffix is of held-out test vectors; `_train` and `_validation`
at its end say another split, and `_random` says that a random dictionary stands in for the atoms. The dashboard logs
`validation/<name>` for validation vectors.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from atomlab.metrics.certified_rates import CertifiedRate, IsometryRates, UniformlyCertifiedRate
from atomlab.metrics.code_isometry import CodeIsometry
from atomlab.metrics.dictionary_geometry import RestrictedIsometry, deciding_coherence
from atomlab.metrics.encoder_recovery import SupportRecoveryRate, WindowRate
from atomlab.metrics.explained_variance import ExplainedQuantile, ExplainedVariance
from atomlab.metrics.stability_index import Stability
from atomlab.metrics.support_sizes import FiringShare, SupportSizes
from atomlab.theory import (
    STABLE_THRESHOLD,
    UNIQUE_THRESHOLD,
    AtomicInnerProduct,
    CoherenceStatistics,
    RestrictedIsometryCurve,
    Supports,
    first_supports,
    random_dictionary,
)

Number = float | int
Named = dict[str, Metric | MetricCollection]
_SIZES = ("l0", "l0_median", "l0_q998", "empty", "certified_level_1", "certified_level_2a", "certified_level_2b")
_SIZES += ("stability_pairwise", "stability_per_atom")  # all keep the same counts of support sizes
_FIRINGS = ("dead", "single_sample")


@final
@dataclass(frozen=True)
class AtomGeometry:
    """A dictionary in its metric, with what its metrics have in common.

    Attributes:
        white: (d_sae, d_in) atoms in whitened coordinates, where the metric is Euclidean, float64.
        coherence: Its coherence statistics, with the Babel curve of `deciding_coherence`.
    """

    white: Float[Tensor, "d_sae d_in"]
    coherence: CoherenceStatistics

    @classmethod
    def of(cls, dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None) -> "AtomGeometry":
        """Computes the geometry of a dictionary.

        Args:
            dictionary: (d_sae, d_in) atoms of any norm.
            metric: Inner product; Euclidean if None.

        Returns:
            The geometry, on the device of `dictionary`.

        Cost: `deciding_coherence`, and 2·d_sae·d_in² float64 FLOPs. Memory: a float64 copy of the dictionary.
        """
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        return cls(white, deciding_coherence(dictionary, metric))

    @classmethod
    def random(cls, dictionary: Float[Tensor, "d_sae d_in"], generator: torch.Generator) -> "AtomGeometry":
        """Computes the geometry of as many independent random atoms of the same width, uniform on the unit sphere.

        They stand in for the atoms in the numbers that end in `_random`: what a number is without any structure. In any
        metric random atoms have the geometry that these have in the Euclidean one.

        Args:
            dictionary: (d_sae, d_in) atoms whose shape and device are taken.
            generator: Of the random atoms, on the CPU.

        Returns:
            The geometry of the random atoms in the Euclidean metric, on the device of `dictionary`.
        """
        d_sae, d_in = dictionary.shape
        return cls.of(random_dictionary(d_sae, d_in, generator).to(dictionary.device))

    @cached_property
    def numbers(self) -> dict[str, Number]:
        """Coherence over all pairs: `coherence`, the largest |cos|; `coherence_median`, the median over atoms of their
        largest |cos|; and quantiles of |cos| over pairs, `pair_q50`, `pair_q99` and `pair_q999`, rounded up by at most
        1e-5.
        """
        found = self.coherence
        return {
            "coherence": found.coherence,
            "coherence_median": float(found.per_atom.median()),
            "pair_q50": found.pair_quantile(0.5),
            "pair_q99": found.pair_quantile(0.99),
            "pair_q999": found.pair_quantile(0.999),
        }


def of_reconstructions(d_in: int, metric: AtomicInnerProduct, suffix: str = "") -> MetricCollection:
    """Makes the metrics of faithfulness.

    Args:
        d_in: Width of the vectors.
        metric: S.
        suffix: Appended to each name.

    Returns:
        `r2`, `r2_uncentred` (both Euclidean) and `r2_s`, the R² in the metric S, to be updated with vectors (batch,
        d_in) and their reconstructions.
    """
    found: Named = {
        "r2": ExplainedVariance(d_in),
        "r2_s": ExplainedVariance(d_in, metric),
        "r2_uncentred": ExplainedVariance(d_in, centred=False),
    }
    return MetricCollection(found, postfix=suffix, compute_groups=[["r2", "r2_uncentred"], ["r2_s"]])


def of_vectors(mean: Float[Tensor, " d_in"], metric: AtomicInnerProduct) -> MetricCollection:
    """Makes the metrics of how well single vectors are explained, large and small ones alike.

    Args:
        mean: (d_in,) mean of the vectors.
        metric: S.

    Returns:
        `r2_vector_median` and `r2_vector_q10`, quantiles over vectors of 1 − ‖x − x̂‖² / ‖x − mean‖², and `r2_s_vector_median`
        and `r2_s_vector_q10`, the same in the metric S, to be updated with vectors (batch, d_in) and their
        reconstructions.
    """
    quantiles, norms = {"median": 0.5, "q10": 0.1}, {"r2": None, "r2_s": metric}
    found: Named = {
        f"{norm}_vector_{name}": ExplainedQuantile(mean, quantile, inner)
        for norm, inner in norms.items()
        for name, quantile in quantiles.items()
    }
    return MetricCollection(found, compute_groups=[[f"{norm}_vector_{name}" for name in quantiles] for norm in norms])


def of_codes(
    names: Iterable[str], geometry: AtomGeometry, *, suffix: str = "", signed: bool = False
) -> MetricCollection:
    """Makes metrics of codes by name.

    Support sizes: `l0`, `l0_median`, `l0_q998`, `empty`. Latents: `dead`, `single_sample`. Certificates:
    `certified_level_1`, `_2a`, `_2b`, `_3`, `_4`, `_4_signed` and `solved_level_5`. Stability: `stability_pairwise`,
    `stability_per_atom`. Isometry of the codes: `isometry_ratio`, `isometry_own`. One-step encoders:
    `identifiable_a_priori`.

    Args:
        names: The names wanted.
        geometry: Of the dictionary.
        suffix: Appended to each name.
        signed: Whether codes may be negative. Then levels 4 and 5 are among codes of any sign.

    Returns:
        A metric for each name, on the device of the geometry, to be updated with codes (batch, d_sae), dense or CSR.

    Raises:
        KeyError: a name that is none of these.
    """
    white, known, d_sae = geometry.white, geometry.coherence, len(geometry.white)
    uniform = partial(UniformlyCertifiedRate, white, statistics=known)
    builders: dict[str, Callable[[], Metric]] = {
        "l0": partial(SupportSizes, d_sae, "mean"),
        "l0_median": partial(SupportSizes, d_sae, "median"),
        "l0_q998": partial(SupportSizes, d_sae, "q998"),
        "empty": partial(SupportSizes, d_sae, "empty"),
        "dead": partial(FiringShare, d_sae, 0),
        "single_sample": partial(FiringShare, d_sae, 1),
        "certified_level_1": partial(uniform, "coherence"),
        "certified_level_2a": partial(uniform, "babel_unique"),
        "certified_level_2b": partial(uniform, "babel_recovery"),
        "certified_level_3": partial(CertifiedRate, white, "exact_recovery"),
        "certified_level_4": partial(CertifiedRate, white, "dual_certificate", one_sided=not signed),
        "certified_level_4_signed": partial(CertifiedRate, white, "dual_certificate", one_sided=False),
        "solved_level_5": partial(CertifiedRate, white, "solved", one_sided=not signed),
        "stability_pairwise": partial(Stability, white, "pairwise", statistics=known),
        "stability_per_atom": partial(Stability, white, "per_atom", statistics=known),
        "isometry_ratio": partial(CodeIsometry, white, "ratio"),
        "isometry_own": partial(CodeIsometry, white, "constant"),
        "identifiable_a_priori": partial(WindowRate, white, coherence=known.coherence_bound),
    }
    found: Named = {name: builders[name]() for name in names}
    groups = [[name for name in found if name in shared] for shared in (_SIZES, _FIRINGS)]
    groups += [[name] for name in found if name not in _SIZES + _FIRINGS]
    return MetricCollection(found, postfix=suffix, compute_groups=[group for group in groups if group]).to(white.device)


def of_isometry(curve: RestrictedIsometryCurve, d_sae: int) -> MetricCollection:
    """Makes the metrics of the verdicts on δ_2K, the restricted isometry constant at twice the size of a code.

    Args:
        curve: Bounds of the restricted isometry constants of the dictionary.
        d_sae: Number of atoms.

    Returns:
        `isometry_unique`, δ_2K < 1, and `isometry_stable`, δ_2K < 1/√2, to be updated with codes (batch, d_sae), dense
        or CSR. Each has three parts (`IsometryRates`).
    """
    thresholds = {"isometry_unique": UNIQUE_THRESHOLD, "isometry_stable": STABLE_THRESHOLD}
    found: Named = {name: IsometryRates(curve, d_sae, value) for name, value in thresholds.items()}
    return MetricCollection(found, compute_groups=[list(found)])


def of_encoder(
    dictionary: Float[Tensor, "d_sae d_in"], thresholds: Float[Tensor, " d_sae"], metric: AtomicInnerProduct
) -> MetricCollection:
    """Makes the metric of how often one-step encoders recover the supports of codes.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        thresholds: (d_sae,) of `shared_thresholds` on training vectors.
        metric: S.

    Returns:
        `identifiable`, with the parts `shared` and `oracle` (`SupportRecoveryRate`), to be updated with activations
        less the bias (batch, d_in) and their codes (batch, d_sae).
    """
    return MetricCollection({"identifiable": SupportRecoveryRate(dictionary, thresholds, metric)})


def restricted_isometry(
    geometry: AtomGeometry, k: int, own: Sequence[Supports], *, samples: int, seed: int
) -> dict[str, Number]:
    """Bounds the restricted isometry constant δ_K of a dictionary from both sides, over all processes.

    Args:
        geometry: Of the dictionary.
        k: K.
        own: Supports of the data's codes, of which those of K atoms are tried too.
        samples: Random supports that are tried.
        seed: Of the random supports.

    Returns:
        `low` and `high`, a lower and an upper bound.
    """
    found = RestrictedIsometry(samples=samples, seed=seed).to(geometry.white.device)
    tried = [first_supports(chosen.indices, chosen.sizes, k) for chosen in own]
    found.update(geometry.white, k, torch.cat(tried) if tried else None)
    low, high = found.compute().tolist()
    return {"low": low, "high": high}


def values(collection: MetricCollection) -> dict[str, Number | dict[str, Number]]:
    """Computes every number of a collection by its name, over all processes.

    Returns:
        Scalars, or, for a metric of several numbers, scalars by the names of its parts. NaN where nothing was seen.
    """
    found = {}
    for name, metric in collection.items():
        value = metric.compute()
        found[name] = {part: v.item() for part, v in value.items()} if isinstance(value, dict) else value.item()
    return found


def flat(numbers: dict[str, Number | dict[str, Number]]) -> dict[str, Number]:
    """Gives the parts of each number a name of their own.

    Args:
        numbers: scalars, or scalars by the names of their parts, by name, as `values` returns them.

    Returns:
        The same scalars, each by its name or by `<name>_<part>`.

    >>> flat({"l0": 2, "isometry_ratio": {"low": 0.5, "high": 1.5}})
    {'l0': 2, 'isometry_ratio_low': 0.5, 'isometry_ratio_high': 1.5}
    """
    found: dict[str, Number] = {}
    for name, value in numbers.items():
        found |= {f"{name}_{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    return found
