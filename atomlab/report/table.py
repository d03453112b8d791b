"""Tables as text, Markdown, CSV and JSON."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomlab.report.column import UNIT, Column
from atomlab.report.columns import CLOSING, COLUMNS, GROUPS

Row = dict[str, Any]


def cell(row: Row, column: Column) -> str:
    """A value as the reader sees it; a dash where it does not apply."""
    value = row.get(column.key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, dict):
        return f"{value:{column.format}}" if isinstance(value, float) else str(value)
    if "low" in value:
        return f"[{value['low']:{column.format}}, {value['high']:{column.format}}] K={value['k']}"
    if "value" in value:
        return f"{value['value']:{column.format}} K={value['k']}"
    return " / ".join(f"{part:{column.format}}" for part in value.values())


def present(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """The columns that have a value in some row."""
    return [column for column in columns if any(cell(row, column) != "–" for row in rows)]


def grouped(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> dict[str, list[Column]]:
    """Tables by title, each beginning with the units; without columns and tables that are empty."""
    unit = next((column for column in columns if column.key == UNIT.key), UNIT)
    tables = {
        title: [column for column in present(rows, columns) if column.group == group and column.key != UNIT.key]
        for group, title in GROUPS.items()
    }
    return {title: [unit, *found] for title, found in tables.items() if found}


def render_text(rows: Sequence[Row], columns: Sequence[Column] = CLOSING) -> str:
    """Aligned plain text for the terminal."""
    table = _lines(rows, columns)
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def render_markdown(rows: Sequence[Row], columns: Sequence[Column] = CLOSING) -> str:
    """A table of GitHub's Markdown that shows every cell as it is, whatever characters it has."""
    header, *lines = [[escaped(text) for text in line] for line in _lines(rows, columns)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(columns), *lines])


def escaped(text: str) -> str:
    """Markdown that shows this text on one line: a backslash before each character that could be markup.

    >>> print(escaped("|cos| of a*b"))
    \\|cos\\| of a\\*b
    """
    return re.sub(r"([\\`*_<>|~&$]|(?<=\])[(:\[])", r"\\\1", " ".join(text.split()))


def _lines(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """Header and cells, none with a line break of its own."""
    lines = [[column.header for column in columns], *([cell(row, column) for column in columns] for row in rows)]
    return [[" ".join(text.split()) for text in line] for line in lines]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Every number of every row at full precision, one column a number; curves stay in the JSON."""
    flat = [{name: part for key, value in row.items() for name, part in _flatten(key, value).items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    write_text(path, text.getvalue())


def write_json(path: Path, payload: Any) -> None:
    """Strict JSON: NaN and infinity become null."""
    write_text(path, json.dumps(finite(payload), indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """All or nothing.

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
    """NaN and infinity become None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
