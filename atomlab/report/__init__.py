"""Tables, figures and a self-contained HTML page from the rows that a study measured.

A study makes `Results` (rows, conclusion, where they come from) and a `Page` (title, notes, further tables) and calls
`write_results`. It writes results.json, results.csv and results.md, then the figures, then report.html.

- `column_type.py`, `all_columns.py`: what a column is, and all columns in order. `columns_of_atoms.py` and `columns_of_codes.py`
  define them.
- `table.py`: rows as plain text, Markdown, CSV and JSON.
- `overview_figures.py`: the three figures on the first screen. `figures.py`, `law_figures.py`: all others.
- `contents.py`: `Results` and `Page`. `atom_browser.py`: the data of the page's atom browser.
- `results.py`, `html.py`: the files of a study. `report.html`, `report.css`, `tables.js` and `atom_*.js` are the page's
  parts: the tables, the list of atoms, the search, and the pane with one atom.
- `leave_out_on_error.py`: leaves out what cannot be computed, with its reason.

Another column: a `Column` in `columns_of_atoms.py` or `columns_of_codes.py`, under the key that the rows have.
Another figure: a function in `figures.py` that returns a `Figure`, its name below, and a line in the `figures` of the
study that shows it (`atomlab.evaluation.studies`).
"""

from atomlab.report.all_columns import CLOSING, COLUMNS
from atomlab.report.atom_browser import AtomBrowser, AtomColumn
from atomlab.report.column_type import UNIT, Column
from atomlab.report.contents import Fact, Page, Results
from atomlab.report.figures import (
    angles_figure,
    babel_figure,
    capacity_figure,
    coherence_figure,
    isometry_figure,
    layers_figure,
    series_figure,
    spectrum_figure,
    thresholds_figure,
)
from atomlab.report.html import png, write_report
from atomlab.report.law_figures import critical_figure, law_figure
from atomlab.report.leave_out_on_error import attempt
from atomlab.report.overview_figures import binned_rates_figure, memory_figure, sparsity_figure
from atomlab.report.results import write_numbers, write_results
from atomlab.report.table import Row, cell, finite, grouped, mean_and_range, render_markdown, write_csv, write_json
from atomlab.report.terminal import paragraph, render_text

__all__ = [
    "CLOSING",
    "COLUMNS",
    "UNIT",
    "AtomBrowser",
    "AtomColumn",
    "Column",
    "Fact",
    "Page",
    "Results",
    "Row",
    "angles_figure",
    "attempt",
    "babel_figure",
    "binned_rates_figure",
    "capacity_figure",
    "cell",
    "coherence_figure",
    "critical_figure",
    "finite",
    "grouped",
    "isometry_figure",
    "law_figure",
    "layers_figure",
    "mean_and_range",
    "memory_figure",
    "paragraph",
    "png",
    "render_markdown",
    "render_text",
    "series_figure",
    "sparsity_figure",
    "spectrum_figure",
    "thresholds_figure",
    "write_csv",
    "write_json",
    "write_numbers",
    "write_report",
    "write_results",
]
