"""The report as one self-contained HTML file, which needs no server and no network."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atomlab.report.contents import Page, Results
from atomlab.report.table import cell, grouped, write_text

_FOLDER = Path(__file__).parent
_SCRIPTS = ("tables.js", "atom_search.js", "atom_detail.js", "atom_browser.js")


def write_report(path: Path, results: Results, page: Page, figures: Mapping[str, bytes]) -> None:
    """Writes the page: the main numbers and figures, sortable tables, further figures, the atom browser, and the provenance.

    Every text is escaped. A Content-Security-Policy names the page's own scripts by their hashes and forbids any other.
    The file is written whole or not at all.

    Args:
        path: of the file.
        results: what was measured.
        page: what the page says beside it.
        figures: PNG files by caption (`png`).

    Raises:
        OSError: the file cannot be written.
    """
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    scripts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    own = {heading: (results.rows, columns) for heading, columns in grouped(results.rows, results.columns).items()}
    encoded = {caption: base64.b64encode(image).decode() for caption, image in figures.items()}
    text = environment.get_template("report.html").render(
        results=results,
        page=page,
        tables={
            heading: {"columns": columns, "lines": [[cell(row, column) for column in columns] for row in rows]}
            for heading, (rows, columns) in (own | dict(page.tables)).items()
        },
        figures={caption: image for caption, image in encoded.items() if caption not in page.overview},
        overview={caption: encoded[caption] for caption in page.overview if caption in encoded},
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(f"'sha256-{_sha256(script)}'" for script in scripts)),
    )
    write_text(path, text)


def write_figures(folder: Path, figures: Mapping[str, bytes]) -> None:
    """Writes each figure as a PNG file named after its caption.

    Args:
        folder: where the files go; it is made if it does not exist.
        figures: PNG files by caption (`png`).

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for caption, image in figures.items():
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in caption.lower()).split()
        (folder / f"{'-'.join(words)}.png").write_bytes(image)


def png(figure: Figure) -> bytes:
    """Draws a figure as the bytes of a PNG file, the same on every machine that has the same fonts.

    It is drawn once. `Figure.savefig` draws everything a first time to find the layout, which `draw` does itself.
    """
    figure.set_dpi(144)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
