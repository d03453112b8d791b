"""What every study leaves in its folder: numbers first, then figures and the page, from one set of rows."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from atomlab.report.attempt import attempt
from atomlab.report.column import Column
from atomlab.report.columns import COLUMNS
from atomlab.report.html import png, write_figures, write_report
from atomlab.report.table import Row, escaped, grouped, render_markdown, render_text, write_csv, write_json, write_text


def write_numbers(
    folder: Path,
    *,
    rows: Sequence[Row],
    provenance: Mapping[str, str],
    identity: Mapping[str, Any],
    conclusion: str,
    columns: Sequence[Column] = COLUMNS,
    records: Mapping[str, Sequence[Row]] | None = None,
) -> None:
    """Writes results.json, .csv and .md, each all or nothing. A study calls it as soon as it has rows, and again when it
    has more, so that nothing that fails later costs them.

    Args:
        folder: where they go; must exist.
        rows, columns: of results.md.
        identity: what was measured (`atomlab.identity`); results.json carries it.
        provenance, conclusion: of `write_report`.
        records: of results.json by key, the first also as results.csv; `rows` alone if None.

    Raises:
        OSError: the folder cannot be written.
    """
    records = {"rows": rows} if records is None else records
    write_json(folder / "results.json", {**records, "provenance": provenance, "identity": identity})
    write_csv(folder / "results.csv", next(iter(records.values())))
    tables = grouped(rows, columns)
    parts = [f"## {heading}\n\n{render_markdown(rows, found)}" for heading, found in tables.items()]
    write_text(folder / "results.md", "\n\n".join([*parts, f"{escaped(conclusion)}\n"]))


def write_results(
    folder: Path,
    *,
    title: str,
    rows: Sequence[Row],
    figures: Mapping[str, Callable[[], Figure]],
    configuration: str,
    provenance: Mapping[str, str],
    identity: Mapping[str, Any],
    conclusion: str,
    columns: Sequence[Column] = COLUMNS,
    records: Mapping[str, Sequence[Row]] | None = None,
    tables: Mapping[str, tuple[Sequence[Row], Sequence[Column]]] | None = None,
    notes: Mapping[str, str] | None = None,
    browser: Mapping[str, Any] | None = None,
    missing: list[str] | None = None,
) -> str:
    """Writes `write_numbers`, then figures/ and report.html; returns the text to print.

    Args:
        folder: where they go; must exist.
        title, configuration, provenance, conclusion, columns, tables, notes, browser: of `write_report`.
        rows: of the page and the text.
        identity: of results.json.
        figures: by caption, each drawn on its own when the numbers are written; one that cannot be drawn drops out, with
            a sentence on the page (`attempt`).
        records: of `write_numbers`.
        missing: sentences about what has dropped out before; gets those of the figures too.

    Raises:
        OSError: the folder cannot be written.
    """
    write_numbers(
        folder,
        rows=rows,
        provenance=provenance,
        identity=identity,
        conclusion=conclusion,
        columns=columns,
        records=records,
    )
    sentences = [] if missing is None else missing
    drawn = {name: attempt(f"The figure “{name}”", partial(_drawn, draw), sentences) for name, draw in figures.items()}
    images = {name: image for name, image in drawn.items() if image is not None}
    write_figures(folder / "figures", images)
    report = folder / "report.html"
    write_report(
        report,
        title=title,
        rows=rows,
        columns=columns,
        figures=images,
        configuration=configuration,
        provenance=provenance,
        conclusion=conclusion,
        tables=tables,
        notes=notes,
        browser=browser,
        missing=sentences,
    )
    tables_of_text = grouped(rows, columns).items()
    shown = "\n\n".join(f"{heading}\n{render_text(rows, found)}" for heading, found in tables_of_text)
    return f"{shown}\n\n{conclusion}\nreport: {report.resolve()}"


def _drawn(draw: Callable[[], Figure]) -> bytes:
    return png(draw())
