"""The table in all its forms, and the page: escaped, self-contained, all or nothing."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from atomlab.report import (
    COLUMNS,
    coherence_figure,
    render_markdown,
    render_text,
    spectrum_figure,
    thresholds_figure,
    write_csv,
    write_json,
    write_report,
)

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
ROW = {c.key: 0.25 for c in COLUMNS} | {
    "unit": EVIL,
    "restricted_isometry_k": {"k": 3, "low": 0.5, "high": 1.5},
    "samples": 9,
}
ROWS = [ROW, ROW | {"unit": "neurons", "coherence": float("nan"), "certified_level_4": None}]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.tags[-1][0] == "td":
            self.cells[-1] += data


def test_page_is_escaped_self_contained_and_complete(tmp_path: Path) -> None:
    figures = {
        EVIL: coherence_figure({"atoms": np.linspace(0, 1, 50)}, 0.1),
        "b": thresholds_figure(np.ones(9), np.zeros(9)),
        "c": spectrum_figure(np.arange(9.0)),
    }
    path = tmp_path / "report.html"
    write_report(
        path,
        title=EVIL,
        rows=ROWS,
        columns=COLUMNS,
        figures=figures,
        configuration=EVIL,
        provenance={EVIL: EVIL},
        conclusion=EVIL,
    )
    text, page = path.read_text(), Page()
    page.feed(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "http:" not in text
    assert "https:" not in text
    assert all(a["src"].startswith("data:image/png") for tag, a in page.tags if tag == "img")
    assert page.cells[: len(COLUMNS)] == [
        EVIL,
        *["0.250"] * 4,
        "0.2",
        "25.0%",
        "0.250",
        *["25.0%"] * 4,
        "[0.50, 1.50] K=3",
    ]
    assert page.cells[len(COLUMNS) :].count("–") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_text_and_markdown_line_up() -> None:
    lines = render_text([ROW | {"unit": "atoms"}, ROWS[1]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(line.count("|") == len(COLUMNS) + 1 for line in render_markdown([ROWS[1]]).splitlines())


def test_files_hold_full_precision_and_strict_json(tmp_path: Path) -> None:
    rows = [ROW | {"l0": 1 / 3}, ROWS[1]]
    write_csv(tmp_path / "t.csv", rows)
    read = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert float(read[0]["l0"]) == 1 / 3
    assert (read[0]["restricted_isometry_k_low"], read[0]["restricted_isometry_k_k"]) == ("0.5", "3")
    write_json(tmp_path / "t.json", rows)
    assert json.loads((tmp_path / "t.json").read_text())[1]["coherence"] is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"t\.json could not be written"):
        write_json(tmp_path / "none" / "t.json", {})
