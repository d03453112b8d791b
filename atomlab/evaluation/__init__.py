"""Units x metrics -> tables, on held-out activations."""

from atomlab.evaluation.bench import Bench, Study
from atomlab.evaluation.capacity import CapacityGrid
from atomlab.evaluation.controlled_table import ControlledTable
from atomlab.evaluation.paper_table import PaperTable
from atomlab.evaluation.protocol import Protocol
from atomlab.evaluation.provenance import origin_of
from atomlab.evaluation.recipe import Recipe
from atomlab.evaluation.run import evaluate_run
from atomlab.evaluation.shift_study import RepresentationShiftStudy
from atomlab.evaluation.table import measure

__all__ = [
    "Bench",
    "CapacityGrid",
    "ControlledTable",
    "PaperTable",
    "Protocol",
    "Recipe",
    "RepresentationShiftStudy",
    "Study",
    "evaluate_run",
    "measure",
    "origin_of",
]
