"""One self-contained HTML file: no server, no network, all text escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from atomlab.report.table import Column, Row, cell, write_text


def write_report(
    path: Path,
    *,
    title: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    figures: Mapping[str, Figure],
    configuration: str,
    provenance: Mapping[str, str],
    conclusion: str,
) -> None:
    """Writes the report, all or nothing: the table (sortable), definitions, figures, configuration and provenance.

    Args:
        path: of the file.
        title, conclusion: plain text.
        rows, columns: of the table.
        figures: by caption.
        configuration: of the run, as text.
        provenance: what a reader needs to repeat the numbers.

    Raises:
        OSError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html").render(
        title=title,
        columns=columns,
        table=[[cell(row, column) for column in columns] for row in rows],
        figures={caption: _png(figure) for caption, figure in figures.items()},
        configuration=configuration,
        provenance=provenance,
        conclusion=conclusion,
    )
    write_text(path, page)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
