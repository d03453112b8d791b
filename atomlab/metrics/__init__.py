"""Streaming torchmetrics over atomlab.theory: float64 sums, int64 counts, bounded state, right on uneven processes."""

from atomlab.metrics.geometry import MutualCoherence, RestrictedIsometry
from atomlab.metrics.reconstruction import ExplainedVariance
from atomlab.metrics.recovery import CertifiedRate, Stability
from atomlab.metrics.sparsity import DeadLatents, L0Histogram, MeanL0

__all__ = [
    "CertifiedRate",
    "DeadLatents",
    "ExplainedVariance",
    "L0Histogram",
    "MeanL0",
    "MutualCoherence",
    "RestrictedIsometry",
    "Stability",
]
