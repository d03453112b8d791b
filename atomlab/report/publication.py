"""What every study writes: results.json, results.csv, figures/ and report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure

from atomlab.report.columns import COLUMNS, Column
from atomlab.report.html import Table, write_figures, write_report
from atomlab.report.table import Row, write_csv, write_json


@final
@dataclass(frozen=True)
class Publication:
    """A study's results, ready to be written.

    Attributes:
        title, conclusion: of the report.
        rows: every number, for results.json and results.csv.
        shown: the rows of the report where these are not all (means over layers); they stand in results.json too.
        columns: of the report.
        figures: by caption.
        provenance: what a reader needs to repeat the numbers.
        notes: what each row is.
        tables: further tables of the report, by heading.
        browser: the atom browser's data.
    """

    title: str
    conclusion: str
    rows: Sequence[Row]
    figures: Mapping[str, Figure]
    provenance: Mapping[str, str]
    columns: Sequence[Column] = COLUMNS
    shown: Sequence[Row] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    browser: Mapping[str, Any] | None = None

    def write(self, folder: Path, configuration: str) -> str:
        """Writes the files, each all or nothing, and returns the line that says where the report is.

        Raises:
            OSError: the folder cannot be written.
        """
        payload = {"rows": self.rows, "provenance": self.provenance}
        write_json(folder / "results.json", payload if self.shown is None else payload | {"means": self.shown})
        write_csv(folder / "results.csv", self.rows)
        write_figures(folder / "figures", self.figures)
        write_report(
            folder / "report.html",
            title=self.title,
            rows=self.rows if self.shown is None else self.shown,
            columns=self.columns,
            figures=self.figures,
            configuration=configuration,
            provenance=self.provenance,
            conclusion=self.conclusion,
            notes=self.notes,
            tables=self.tables,
            browser=self.browser,
        )
        return f"report: {(folder / 'report.html').resolve()}"
