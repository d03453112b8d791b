"""Units x metrics -> tables, on held-out activations."""

from atomlab.evaluation.browser.browse import BrowserOptions
from atomlab.evaluation.provenance import origin_of
from atomlab.evaluation.recipe import Recipe
from atomlab.evaluation.rows.measure import measure
from atomlab.evaluation.sample_sizes import SampleSizes
from atomlab.evaluation.studies.capacity import CapacityGrid
from atomlab.evaluation.studies.closing_table import evaluate_run
from atomlab.evaluation.studies.controlled_table import ControlledTable
from atomlab.evaluation.studies.paper_table import PaperTable
from atomlab.evaluation.studies.representation_shift import RepresentationShiftStudy
from atomlab.evaluation.study import Study, StudyInputs

__all__ = [
    "BrowserOptions",
    "CapacityGrid",
    "ControlledTable",
    "PaperTable",
    "Recipe",
    "RepresentationShiftStudy",
    "SampleSizes",
    "Study",
    "StudyInputs",
    "evaluate_run",
    "measure",
    "origin_of",
]
