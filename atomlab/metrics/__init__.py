"""Streaming torchmetrics over atomlab.theory: float64 sums, int64 counts, bounded state, right on uneven processes."""

from atomlab.metrics.geometry import CoherenceProfile, MatchedCosine, MutualCoherence, RestrictedIsometry
from atomlab.metrics.identifiability import SupportRecoveryRate, WindowRate
from atomlab.metrics.isometry import IsometryDistribution
from atomlab.metrics.language_model import LossRecovered, NextTokenKL
from atomlab.metrics.reconstruction import ExplainedVariance, RefittedExplainedVariance
from atomlab.metrics.recovery import CertifiedRate, IsometryRates, Stability, UniformlyCertifiedRate
from atomlab.metrics.shift import RepresentationShift
from atomlab.metrics.sparsity import DeadLatents, L0Histogram, MeanL0

__all__ = [
    "CertifiedRate",
    "CoherenceProfile",
    "DeadLatents",
    "ExplainedVariance",
    "IsometryDistribution",
    "IsometryRates",
    "L0Histogram",
    "LossRecovered",
    "MatchedCosine",
    "MeanL0",
    "MutualCoherence",
    "NextTokenKL",
    "RefittedExplainedVariance",
    "RepresentationShift",
    "RestrictedIsometry",
    "Stability",
    "SupportRecoveryRate",
    "UniformlyCertifiedRate",
    "WindowRate",
]
