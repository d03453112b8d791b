"""Streaming metrics over atomlab.theory: float64 sums, int64 counts, one value on any number of processes.

`by_name` says which of them gives each named number of a table or a dashboard, `sample_sizes` on how many vectors, and
`group_bootstrap` how much a number would differ over other documents.
"""

from atomlab.metrics.angles import RepresentationShift
from atomlab.metrics.certified_rates import CertifiedRate, IsometryRates, UniformlyCertifiedRate
from atomlab.metrics.code_isometry import CodeIsometry
from atomlab.metrics.dictionary_geometry import MatchedCosine, RestrictedIsometry
from atomlab.metrics.encoder_recovery import SupportRecoveryRate, WindowRate
from atomlab.metrics.explained_variance import ExplainedQuantile, ExplainedVariance, RefittedExplainedVariance
from atomlab.metrics.language_model_loss import LossRecovered, NextTokenKL
from atomlab.metrics.stability_index import Stability
from atomlab.metrics.support_sizes import FiringShare, SupportSizes

__all__ = [
    "CertifiedRate",
    "CodeIsometry",
    "ExplainedQuantile",
    "ExplainedVariance",
    "FiringShare",
    "IsometryRates",
    "LossRecovered",
    "MatchedCosine",
    "NextTokenKL",
    "RefittedExplainedVariance",
    "RepresentationShift",
    "RestrictedIsometry",
    "Stability",
    "SupportRecoveryRate",
    "SupportSizes",
    "UniformlyCertifiedRate",
    "WindowRate",
]
