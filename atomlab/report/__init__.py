"""Tables, figures and a page to look at."""

from atomlab.report.figures import coherence_figure, spectrum_figure, thresholds_figure
from atomlab.report.html import write_report
from atomlab.report.table import COLUMNS, Column, render_markdown, render_text, write_csv, write_json

__all__ = [
    "COLUMNS",
    "Column",
    "coherence_figure",
    "render_markdown",
    "render_text",
    "spectrum_figure",
    "thresholds_figure",
    "write_csv",
    "write_json",
    "write_report",
]
