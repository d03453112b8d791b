"""Tables of results.md are tables whatever the names of their rows (faults.md D10)."""

import csv
import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from atomlab.report import COLUMNS, Results, cell, grouped, render_markdown, render_text, write_numbers
from tests.report.pages import ROW, ROWS

NAMES = ["a|b", "two\nlines", "*bold* _it_ `code`", "\\", "a\\|b", "[x](http://x) <b> &amp; ~~no~~", "| --- |"]
NAMED = [ROW | {"unit": name} for name in NAMES]


def text_of(inline: Token) -> str:
    """What a reader sees of a cell; anything but text in it is markup that was not escaped."""
    parts = inline.children or []
    assert {part.type for part in parts} <= {"text", "text_special"}, parts
    return "".join(part.content for part in parts)


def cells(markdown: str) -> list[list[str]]:
    """The rows of the one table, by an independent reader of GitHub's Markdown."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    kinds = [token.type for token in tokens if token.level == 0]
    assert kinds == ["table_open", "table_close"]
    lines: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            lines.append([])
        if token.type == "inline":
            lines[-1].append(text_of(token))
    return lines


@pytest.mark.parametrize("title", grouped(ROWS))
def test_every_cell_of_every_table_reads_as_it_is(title: str) -> None:
    """The geometry table's own headers hold bars, |cos| 50%, and asterisks, q*."""
    columns = grouped(NAMED)[title]
    header, *lines = cells(render_markdown(NAMED, columns))
    assert header == [column.header for column in columns]
    assert lines == [[" ".join(cell(row, column).split()) for column in columns] for row in NAMED]


def test_names_with_line_breaks_keep_the_printed_table_and_every_file_whole(tmp_path: Path) -> None:
    for table in render_text(NAMED, COLUMNS).split("\n\n"):
        lines = table.splitlines()
        assert len(lines) - 1 - [set(line) == {"─"} for line in lines].index(True) == len(NAMED)
    write_numbers(tmp_path, Results(NAMED, "k|m *held out*", {}, {}))
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as stream:
        assert [line["unit"] for line in csv.DictReader(stream)] == NAMES
    assert [row["unit"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]] == NAMES
    assert (tmp_path / "results.md").read_text().endswith("k\\|m \\*held out\\*\n")
