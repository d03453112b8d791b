"""Measures units on held-out activations, with controls, and writes what a reader needs to check it.

`rows` has the numbers of one unit, `controls` what the atoms must beat, `browser` where each atom fires, and `studies`
one file for each study of evaluate.py: which units, at which layers and sizes, and what the result says. `study` has
what all of them are given; `retraining` and `surrogates` are for those that train TSAEs of their own; `provenance` says
where the numbers come from. Another study is a class in `studies` and an option file in conf/study/.
"""

from atomlab.evaluation.browser.browse import BrowserOptions
from atomlab.evaluation.provenance import origin_of
from atomlab.evaluation.retraining import Retraining
from atomlab.evaluation.rows.measure import measure
from atomlab.evaluation.saved_sae import save_trained
from atomlab.evaluation.studies.capacity import CapacityGrid
from atomlab.evaluation.studies.closing_table import Nulls, RunOrigin, evaluate_run
from atomlab.evaluation.studies.controlled_table import ControlledTable
from atomlab.evaluation.studies.paper_table import PaperTable
from atomlab.evaluation.studies.representation_shift import RepresentationShiftStudy
from atomlab.evaluation.studies.synthetic import SyntheticStudy
from atomlab.evaluation.study import Study, StudyInputs

__all__ = [
    "BrowserOptions",
    "CapacityGrid",
    "ControlledTable",
    "Nulls",
    "PaperTable",
    "RepresentationShiftStudy",
    "Retraining",
    "RunOrigin",
    "Study",
    "StudyInputs",
    "SyntheticStudy",
    "evaluate_run",
    "measure",
    "origin_of",
    "save_trained",
]
