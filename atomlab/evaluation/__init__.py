"""Units x metrics -> tables, on held-out activations."""

from atomlab.evaluation.run import evaluate_run
from atomlab.evaluation.table import Protocol, measure

__all__ = ["Protocol", "evaluate_run", "measure"]
