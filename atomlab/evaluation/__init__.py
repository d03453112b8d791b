"""Units x metrics -> tables, on held-out activations."""

from atomlab.evaluation.bench import Bench, Study
from atomlab.evaluation.controlled_table import ControlledTable
from atomlab.evaluation.protocol import Protocol
from atomlab.evaluation.recipe import Recipe
from atomlab.evaluation.run import evaluate_run
from atomlab.evaluation.table import measure

__all__ = ["Bench", "ControlledTable", "Protocol", "Recipe", "Study", "evaluate_run", "measure"]
