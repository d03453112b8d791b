"""Rows as tables for the terminal, never wider than 100 columns."""

import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from atomlab.report.all_columns import CLOSING
from atomlab.report.column_type import Column
from atomlab.report.table import Row, lines

WIDTH = 100
_GAP = 2  # between two columns


def render_text(rows: Sequence[Row], columns: Sequence[Column] = CLOSING) -> str:
    """Formats rows as aligned plain text.

    Where the columns do not fit into 100 characters, several tables stand one below the other, each with the first column
    in front. Headers are broken into lines, cells are not: a single cell may be wider.

    Args:
        rows: of the table.
        columns: from left to right; the first is aligned on its left, all others on their right.

    Returns:
        For each table the headers, a rule and a line for each row. No line break at the end.
    """
    table = list(zip(*lines(rows, columns), strict=True))  # by column: its header, then its cells
    return "\n\n".join(_one(table[0], block) for block in _blocks(table))


def paragraph(text: str) -> str:
    """Breaks a text into lines of at most 100 characters; a longer word, such as a path, stays whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _blocks(table: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Splits all columns but the first into tables that fit."""
    first = _width(table[0])
    blocks: list[list[Sequence[str]]] = [[]]
    for column in table[1:]:
        used = first + sum(_GAP + _width(other) for other in (*blocks[-1], column))
        if used > WIDTH and blocks[-1]:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _width(column: Sequence[str]) -> int:
    """The width of the cells, and of a header that is broken into two lines at most."""
    header, *cells = column
    broken = next(width for width in range(1, len(header) + 2) if len(textwrap.wrap(header, width)) <= 2)
    return max(broken, *map(cell_len, header.split()), *map(cell_len, cells), 1)


def _one(first: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
    for number, column in enumerate((first, *others)):
        width = _width(column)
        table.add_column(Text(column[0]), justify="right" if number else "left", min_width=width, max_width=width)
    for row in list(zip(first, *others, strict=True))[1:]:
        table.add_row(*map(Text, row))
    total = sum(_width(column) + _GAP for column in (first, *others)) + len(others) + 1
    console = Console(file=io.StringIO(), width=max(WIDTH, total), color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))
