"""Tables, figures and a page to look at."""

from atomlab.report.attempt import attempt
from atomlab.report.column import UNIT, Column
from atomlab.report.columns import CLOSING, COLUMNS
from atomlab.report.figures import (
    angles_figure,
    babel_figure,
    capacity_figure,
    coherence_figure,
    isometry_figure,
    layers_figure,
    rates_figure,
    spectrum_figure,
    thresholds_figure,
)
from atomlab.report.html import png, write_report
from atomlab.report.results import write_numbers, write_results
from atomlab.report.table import Row, cell, finite, grouped, render_markdown, render_text, write_csv, write_json

__all__ = [
    "CLOSING",
    "COLUMNS",
    "UNIT",
    "Column",
    "Row",
    "angles_figure",
    "attempt",
    "babel_figure",
    "capacity_figure",
    "cell",
    "coherence_figure",
    "finite",
    "grouped",
    "isometry_figure",
    "layers_figure",
    "png",
    "rates_figure",
    "render_markdown",
    "render_text",
    "spectrum_figure",
    "thresholds_figure",
    "write_csv",
    "write_json",
    "write_numbers",
    "write_report",
    "write_results",
]
