"""The table as text, Markdown, CSV and JSON."""

import csv
import json
import re
from pathlib import Path

import pytest

from atomlab.report import CLOSING, COLUMNS, cell, grouped, render_markdown, render_text, write_csv, write_json
from tests.report.pages import ROW, ROWS


def test_text_and_markdown_line_up() -> None:
    tables = [table.splitlines() for table in render_text([ROW | {"unit": "atoms"}, ROWS[1]]).split("\n\n")]
    seen = ""
    for table in tables:
        rule = next(number for number, line in enumerate(table) if set(line) == {"─"})
        assert rule in (1, 2)  # a header is broken into two lines at most
        assert [line.split("  ")[0] for line in table[rule + 1 :]] == ["atoms", ROWS[1]["unit"]]
        assert all(len(line) <= len(table[rule]) <= 100 for line in table)
        seen += " ".join(table[:rule])
    for column in CLOSING:
        assert all(word in seen for word in column.header.split())
    cells = sum(len(re.split(r"  +", line)) for table in tables for line in table[-1:])
    assert cells == len(CLOSING) - 1 + len(tables)
    assert all(line.count("|") == len(CLOSING) + 1 for line in render_markdown([ROWS[1]]).splitlines())


def test_files_hold_full_precision_and_strict_json(tmp_path: Path) -> None:
    rows = [ROW | {"l0": 1 / 3}, ROWS[1]]
    write_csv(tmp_path / "t.csv", rows)
    read = list(csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    assert float(read[0]["l0"]) == 1 / 3
    assert (read[0]["restricted_isometry_k_low"], read[0]["restricted_isometry_k_k"]) == ("0.5", "3")
    write_json(tmp_path / "t.json", rows)
    assert json.loads((tmp_path / "t.json").read_text())[1]["coherence"] is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"t\.json could not be written"):
        write_json(tmp_path / "none" / "t.json", {})


def test_cells_read_as_their_column_says() -> None:
    texts = {column.key: cell(ROW, column) for column in COLUMNS}
    assert texts["r2"] == "0.250"
    assert texts["dead"] == "25.0%"
    assert texts["restricted_isometry_k"] == "[0.50, 1.50] K=3"
    assert texts["r2_interval"] == "[0.125, 0.500]"
    assert texts["certified_level_4_interval"] == "[12.5%, 50.0%]"
    assert (texts["r2_difference"], texts["r2_s_difference"]) == ("+0.250 [-0.125, +0.500]", "-0.250")
    assert texts["babel"] == "0.50 K=3"
    assert texts["isometry_unique"] == "25% / 50% / 25%"
    assert texts["l0_median"] == "3"


def test_empty_columns_and_tables_are_left_out_and_every_column_has_a_table() -> None:
    assert sum(len(columns) - 1 for columns in grouped(ROWS).values()) == len(COLUMNS) - 1
    few = grouped([{"unit": "atoms", "r2": 0.5, "l0": None, "coherence": float("nan")}])
    assert [[column.key for column in columns] for columns in few.values()] == [["unit", "r2"]]
