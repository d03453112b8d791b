"""Writes rows as Markdown, CSV and JSON."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomlab.report.all_columns import CLOSING, COLUMNS, GROUPS
from atomlab.report.column_type import UNIT, Column

Row = dict[str, Any]


def cell(row: Row, column: Column) -> str:
    """Formats the value of one cell as the reader sees it.

    Args:
        row: has the value under the key of the column, or does not have it. A value is a number, text, an interval
            (`low`, `high`), a number with its interval (`value`, `low`, `high`), either of them at a support size (`k`), or a
            mapping of shares.
        column: its key and the format of its numbers.

    Returns:
        The text; a dash if the row has no value there, or NaN.
    """
    value = row.get(column.key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, dict):
        return f"{value:{column.format}}" if isinstance(value, float) else str(value)
    if "low" in value or "value" in value:
        parts = [f"{value['value']:{column.format}}"] if "value" in value else []
        parts += (
            [f"[{value['low']:{column.format}}, {value['high']:{column.format}}]"]
            if value.get("low") is not None
            else []
        )
        parts += [f"K={value['k']}"] if "k" in value else []
        return " ".join(parts) or "–"
    return " / ".join(f"{part:{column.format}}" for part in value.values())


def mean_and_range(values: Sequence[float]) -> dict[str, float]:
    """Puts numbers of several runs, at least one, into one cell of a table.

    Args:
        values: a number of each run.

    Returns:
        Their mean as `value`, the smallest one as `low` and the largest one as `high`.
    """
    return {"value": sum(values) / len(values), "low": min(values), "high": max(values)}


def present(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """Chooses the columns that have a value in some row.

    Args:
        rows: of the table.
        columns: all columns that may be shown.

    Returns:
        The columns in their order, without those whose cells are all dashes (`cell`).
    """
    return [column for column in columns if any(cell(row, column) != "–" for row in rows)]


def grouped(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> dict[str, list[Column]]:
    """Sorts columns into the tables of the report (`GROUPS`).

    Args:
        rows: decide which columns have a value. Columns without any are left out, and so are tables without columns.
        columns: all columns that may be shown.

    Returns:
        The columns of each table by its title; the first column of each names the units.
    """
    unit = next((column for column in columns if column.key == UNIT.key), UNIT)
    tables = {
        title: [column for column in present(rows, columns) if column.group == group and column.key != UNIT.key]
        for group, title in GROUPS.items()
    }
    return {title: [unit, *found] for title, found in tables.items() if found}


def render_markdown(rows: Sequence[Row], columns: Sequence[Column] = CLOSING) -> str:
    """Formats rows as a table of GitHub's Markdown.

    Args:
        rows: of the table.
        columns: from left to right.

    Returns:
        The table, in which characters of a cell that could be markup are escaped, without a line break at the end.
    """
    header, *cells = [[escaped(text) for text in line] for line in lines(rows, columns)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(columns), *cells])


def escaped(text: str) -> str:
    """Escapes text for one line of Markdown.

    Args:
        text: any text.

    Returns:
        The text with a backslash before each character that could be markup, and one space for each run of white space.

    >>> print(escaped("|cos| of a*b"))
    \\|cos\\| of a\\*b
    """
    return re.sub(r"([\\`*_<>|~&$]|(?<=\])[(:\[])", r"\\\1", " ".join(text.split()))


def lines(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """Returns the header and the cells of every row as texts, without line breaks inside a cell."""
    texts = [[column.header for column in columns], *([cell(row, column) for column in columns] for row in rows)]
    return [[" ".join(text.split()) for text in line] for line in texts]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes every number of every row at full precision, each in a column of its own.

    Lists, such as the curves of figures, are left out; results.json has them.

    Args:
        path: of the file; it is written whole or not at all.
        rows: a value that is a mapping becomes one column for each of its keys, `<key>_<part>`.

    Raises:
        OSError: the folder cannot be written.
    """
    flat = [{name: part for key, value in row.items() for name, part in _flatten(key, value).items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    write_text(path, text.getvalue())


def write_json(path: Path, payload: Any) -> None:
    """Writes strict JSON, in which NaN and infinity are null.

    Args:
        path: of the file; it is written whole or not at all.
        payload: mappings, lists, numbers and texts.

    Raises:
        OSError: the folder cannot be written.
    """
    write_text(path, json.dumps(finite(payload), indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Args:
        path: of the file; what was there before is replaced.
        text: is written as UTF-8.

    Raises:
        OSError: the folder cannot be written; nothing half-written stays.
    """
    temporary = path.with_name(f".writing-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({error}): give a folder with space and write access.") from error


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {} if isinstance(value, list) else {key: value}
    return {f"{key}_{part}": number for part, number in value.items() if not isinstance(number, list)}


def finite(value: Any) -> Any:
    """Replaces NaN and infinity by None at any depth of mappings, lists and tuples.

    Args:
        value: mappings, lists, tuples, numbers and texts.

    Returns:
        The same value; tuples become lists.

    >>> finite({"r2": float("nan"), "curve": (1.0, float("inf"))})
    {'r2': None, 'curve': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
