"""One self-contained HTML file: no server, no network, all text escaped, no script but atomlab's own."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from atomlab.report.column import Column
from atomlab.report.columns import COLUMNS
from atomlab.report.table import Row, cell, finite, grouped, write_text

_FOLDER = Path(__file__).parent
_SCRIPTS = ("tables.js", "browser.js")


def write_report(
    path: Path,
    *,
    title: str,
    rows: Sequence[Row],
    columns: Sequence[Column] = COLUMNS,
    figures: Mapping[str, bytes],
    configuration: str,
    provenance: Mapping[str, str],
    conclusion: str,
    tables: Mapping[str, tuple[Sequence[Row], Sequence[Column]]] | None = None,
    notes: Mapping[str, str] | None = None,
    browser: Mapping[str, Any] | None = None,
    missing: Sequence[str] = (),
) -> None:
    """Writes the report, all or nothing: sortable tables with definitions, atom browser, figures, configuration, origin.

    Every text is escaped; a Content-Security-Policy lets no script run but the page's own, named by their hashes.

    Args:
        path: of the file.
        title, conclusion: plain text.
        rows, columns: of the tables by group; columns that are empty are left out.
        figures: by caption, as PNG (`png`).
        configuration: of the run, as text.
        provenance: what a reader needs to repeat the numbers.
        tables: further ones by heading, with rows and columns of their own.
        notes: what each row is.
        browser: of the atoms, see `atom_data`.
        missing: a sentence about each part that could not be computed or drawn.

    Raises:
        OSError: the file cannot be written.
    """
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    scripts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    every = {heading: (rows, found) for heading, found in grouped(rows, columns).items()} | dict(tables or {})
    page = environment.get_template("report.html").render(
        title=title,
        tables={
            heading: {"columns": found, "lines": [[cell(line, column) for column in found] for line in lines]}
            for heading, (lines, found) in every.items()
        },
        figures={caption: base64.b64encode(image).decode() for caption, image in figures.items()},
        missing=missing,
        configuration=configuration,
        provenance=provenance,
        conclusion=conclusion,
        notes=notes or {},
        atom_data=None if browser is None else atom_data(browser),
        browsed=None if browser is None else f"{browser['samples']:,}",
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(f"'sha256-{_sha256(script)}'" for script in scripts)),
    )
    write_text(path, page)


def atom_data(browser: Mapping[str, Any]) -> Markup:
    """JSON for the browser, in which no character can end the element that holds it.

    Keys: `columns` (each `key`, `header`, `definition` and `values`, one an atom; the first is the atom's number),
    `nearest` (pairs of atom and cosine), `up` and `down` (vocabulary numbers, or null), `contexts` (value, place of
    the token, vocabulary numbers), `vocabulary` (texts).
    """
    text = json.dumps(finite(browser), ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def write_figures(folder: Path, figures: Mapping[str, bytes]) -> None:
    """Each figure's PNG in `folder`, named after its caption.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for caption, image in figures.items():
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in caption.lower()).split()
        (folder / f"{'-'.join(words)}.png").write_bytes(image)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, the same on every machine that has the same fonts."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
