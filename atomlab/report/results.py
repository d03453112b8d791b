"""What every study leaves in its folder: numbers, figures and the page, from one set of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from atomlab.report.column import Column
from atomlab.report.columns import COLUMNS
from atomlab.report.html import write_figures, write_report
from atomlab.report.table import Row, grouped, render_markdown, render_text, write_csv, write_json, write_text


def write_results(
    folder: Path,
    *,
    title: str,
    rows: Sequence[Row],
    figures: Mapping[str, Figure],
    configuration: str,
    provenance: Mapping[str, str],
    conclusion: str,
    columns: Sequence[Column] = COLUMNS,
    records: Mapping[str, Sequence[Row]] | None = None,
    tables: Mapping[str, tuple[Sequence[Row], Sequence[Column]]] | None = None,
    notes: Mapping[str, str] | None = None,
    browser: Mapping[str, Any] | None = None,
) -> str:
    """Writes results.json, .csv and .md, figures/ and report.html, each all or nothing; returns the text to print.

    Args:
        folder: where they go; must exist.
        title, figures, configuration, provenance, conclusion, columns, tables, notes, browser: of `write_report`.
        rows: of the page and the text.
        records: of results.json by key, the first also as results.csv; `rows` alone if None.

    Raises:
        OSError: the folder cannot be written.
    """
    records = {"rows": rows} if records is None else records
    grouped_columns = grouped(rows, columns)
    write_json(folder / "results.json", {**records, "provenance": provenance})
    write_csv(folder / "results.csv", next(iter(records.values())))
    parts = [f"## {heading}\n\n{render_markdown(rows, found)}" for heading, found in grouped_columns.items()]
    write_text(folder / "results.md", "\n\n".join([*parts, f"{conclusion}\n"]))
    write_figures(folder / "figures", figures)
    report = folder / "report.html"
    write_report(
        report,
        title=title,
        rows=rows,
        columns=columns,
        figures=figures,
        configuration=configuration,
        provenance=provenance,
        conclusion=conclusion,
        tables=tables,
        notes=notes,
        browser=browser,
    )
    shown = "\n\n".join(f"{heading}\n{render_text(rows, found)}" for heading, found in grouped_columns.items())
    return f"{shown}\n\n{conclusion}\nreport: {report.resolve()}"
