"""The files that every study leaves in its folder: numbers first, then figures and the page, all from the same rows."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from atomlab.report.contents import Page, Results
from atomlab.report.html import png, write_figures, write_report
from atomlab.report.leave_out_on_error import attempt
from atomlab.report.table import escaped, grouped, render_markdown, write_csv, write_json, write_text
from atomlab.report.terminal import render_text


def write_numbers(folder: Path, results: Results) -> None:
    """Writes results.json, results.csv and results.md; each file is written whole or not at all.

    A study calls this as soon as it has rows, and again when it has more, so that a later failure does not cost them.

    Args:
        folder: where the files go; it must exist.
        results: what was measured so far.

    Raises:
        OSError: the folder cannot be written.
    """
    records = {"rows": results.rows} if results.records is None else results.records
    origin = {"provenance": results.provenance, "identity": results.identity}
    write_json(folder / "results.json", {**records, **origin})
    write_csv(folder / "results.csv", next(iter(records.values())))
    tables = grouped(results.rows, results.columns)
    parts = [f"## {heading}\n\n{render_markdown(results.rows, columns)}" for heading, columns in tables.items()]
    write_text(folder / "results.md", "\n\n".join([*parts, f"{escaped(results.conclusion)}\n"]))


def write_results(folder: Path, results: Results, page: Page, figures: Mapping[str, Callable[[], Figure]]) -> str:
    """Writes the numbers (`write_numbers`), then figures/ and report.html.

    Args:
        folder: where the files go; it must exist.
        results: what was measured.
        page: what the page says beside it. `page.missing` gets a sentence about each figure that cannot be drawn.
        figures: functions that draw them, by caption. They are called one by one when the numbers are written.

    Returns:
        The text to print: the tables, the conclusion and the place of the report.

    Raises:
        OSError: the folder cannot be written.
    """
    write_numbers(folder, results)
    drawn = {
        caption: attempt(f"The figure “{caption}”", partial(_drawn, draw), page.missing)
        for caption, draw in figures.items()
    }
    images = {caption: image for caption, image in drawn.items() if image is not None}
    write_figures(folder / "figures", images)
    report = folder / "report.html"
    write_report(report, results, page, images)
    tables = grouped(results.rows, results.columns)
    shown = "\n\n".join(f"{heading}\n{render_text(results.rows, columns)}" for heading, columns in tables.items())
    return f"{shown}\n\n{results.conclusion}\nreport: {report.resolve()}"


def _drawn(draw: Callable[[], Figure]) -> bytes:
    return png(draw())
