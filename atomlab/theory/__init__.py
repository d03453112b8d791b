"""The mathematics of atoms: pure functions of tensors, each with its sense, its cost and its source.

Other rooms import from here only. The files, by the sections of theory.md:

    1     inner_product                 the atomic inner product and other metrics
    2     representation_shift          angles between activations, in every metric, beside their null
    3     coherence                     mutual coherence, the Babel function, the Welch bound
    4     restricted_isometry           intervals for δ_K, and what they decide
          code_isometry                 the isometry of the codes that occur
    5     certificates                  levels 1 to 4: sufficient conditions
          mixed_precision_maximum       the maximum over atoms that levels 3 and 4 need
          basis_pursuit                 level 5: ℓ1 minimisation, solved
          certificate_levels            all five levels, and their rates
          stability                     the index q*
    6     identifiability               thresholds, one-step recovery and refits
    8     faithfulness                  variance explained, loss recovered, KL divergence
    9     random_baselines              dictionaries and codes that know nothing
          matching                      which atoms of two dictionaries correspond
          orthogonal_matching_pursuit   codes on a dictionary that has no encoder
    all   resampling                    how much a number would differ over other documents
          supports                      sparse codes as padded arrays, and checks of inputs
"""

from atomlab.theory.basis_pursuit import basis_pursuit, solved_recovery
from atomlab.theory.certificate_levels import LARGEST_SUPPORT, RecoveryLevels, rate, recovery_levels
from atomlab.theory.certificates import (
    MARGIN,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    dual_certificates,
    exact_recovery_coefficient,
    exact_recovery_coefficients,
)
from atomlab.theory.code_isometry import EmpiricalIsometry, empirical_isometry, isometry_ratios
from atomlab.theory.coherence import (
    CoherenceStatistics,
    babel_function,
    coherence_statistics,
    mutual_coherence,
    per_atom_coherence,
    unit_rows,
    welch_bound,
)
from atomlab.theory.faithfulness import (
    explained_shares,
    explained_variance,
    kl_divergence,
    loss_recovered,
    variance_sums,
)
from atomlab.theory.identifiability import (
    SupportRecovery,
    ThresholdWindows,
    reconstruct,
    refit_codes,
    shared_thresholds,
    support_recovery,
    threshold_windows,
)
from atomlab.theory.inner_product import AtomicInnerProduct, disagreement
from atomlab.theory.matching import CAME_BACK, match_atoms, matched_cosines, mean_matched_cosine, subspace_energy
from atomlab.theory.orthogonal_matching_pursuit import orthogonal_matching_pursuit
from atomlab.theory.random_baselines import random_codes, random_dictionary
from atomlab.theory.representation_shift import (
    AngleDistribution,
    Geometry,
    RepresentationShift,
    angle_distribution,
    gaussian_surrogate,
    geometries,
    representation_shift,
)
from atomlab.theory.resampling import bootstrap_interval, group_weights
from atomlab.theory.restricted_isometry import (
    STABLE_THRESHOLD,
    UNIQUE_THRESHOLD,
    IsometryVerdicts,
    RestrictedIsometryBounds,
    RestrictedIsometryCurve,
    first_supports,
    isometry_constants,
    restricted_isometry_bounds,
    restricted_isometry_curve,
)
from atomlab.theory.stability import stability_pairwise, stability_per_atom
from atomlab.theory.supports import (
    Supports,
    firing_counts,
    first_samples,
    support_grams,
    support_sizes,
    supports,
)

__all__ = [
    "CAME_BACK",
    "LARGEST_SUPPORT",
    "MARGIN",
    "STABLE_THRESHOLD",
    "UNIQUE_THRESHOLD",
    "AngleDistribution",
    "AtomicInnerProduct",
    "CoherenceStatistics",
    "EmpiricalIsometry",
    "Geometry",
    "IsometryVerdicts",
    "RecoveryLevels",
    "RepresentationShift",
    "RestrictedIsometryBounds",
    "RestrictedIsometryCurve",
    "SupportRecovery",
    "Supports",
    "ThresholdWindows",
    "angle_distribution",
    "babel_function",
    "babel_recovery_certified",
    "babel_unique_certified",
    "basis_pursuit",
    "bootstrap_interval",
    "coherence_certified",
    "coherence_statistics",
    "disagreement",
    "dual_certificates",
    "empirical_isometry",
    "exact_recovery_coefficient",
    "exact_recovery_coefficients",
    "explained_shares",
    "explained_variance",
    "firing_counts",
    "first_samples",
    "first_supports",
    "gaussian_surrogate",
    "geometries",
    "group_weights",
    "isometry_constants",
    "isometry_ratios",
    "kl_divergence",
    "loss_recovered",
    "match_atoms",
    "matched_cosines",
    "mean_matched_cosine",
    "mutual_coherence",
    "orthogonal_matching_pursuit",
    "per_atom_coherence",
    "random_codes",
    "random_dictionary",
    "rate",
    "reconstruct",
    "recovery_levels",
    "refit_codes",
    "representation_shift",
    "restricted_isometry_bounds",
    "restricted_isometry_curve",
    "shared_thresholds",
    "solved_recovery",
    "stability_pairwise",
    "stability_per_atom",
    "subspace_energy",
    "support_grams",
    "support_recovery",
    "support_sizes",
    "supports",
    "threshold_windows",
    "unit_rows",
    "variance_sums",
    "welch_bound",
]
