"""The mathematics of atoms: pure functions of tensors (see theory sections in each docstring)."""

from atomlab.theory.codes import Supports, support_grams, supports
from atomlab.theory.coherence import (
    CoherenceStatistics,
    babel_function,
    coherence_statistics,
    mutual_coherence,
    per_atom_coherence,
    unit_rows,
    welch_bound,
)
from atomlab.theory.inner_product import AtomicInnerProduct, disagreement
from atomlab.theory.isometry import (
    RestrictedIsometryBounds,
    first_supports,
    isometry_constants,
    restricted_isometry_bounds,
)
from atomlab.theory.matching import match_atoms, mean_matched_cosine
from atomlab.theory.pursuit import orthogonal_matching_pursuit
from atomlab.theory.recovery import (
    MARGIN,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    dual_certificates,
    exact_recovery_coefficient,
)
from atomlab.theory.stability import random_dictionary, stability_pairwise, stability_per_atom

__all__ = [
    "MARGIN",
    "AtomicInnerProduct",
    "CoherenceStatistics",
    "RestrictedIsometryBounds",
    "Supports",
    "babel_function",
    "babel_recovery_certified",
    "babel_unique_certified",
    "coherence_certified",
    "coherence_statistics",
    "disagreement",
    "dual_certificates",
    "exact_recovery_coefficient",
    "first_supports",
    "isometry_constants",
    "match_atoms",
    "mean_matched_cosine",
    "mutual_coherence",
    "orthogonal_matching_pursuit",
    "per_atom_coherence",
    "random_dictionary",
    "restricted_isometry_bounds",
    "stability_pairwise",
    "stability_per_atom",
    "support_grams",
    "supports",
    "unit_rows",
    "welch_bound",
]
