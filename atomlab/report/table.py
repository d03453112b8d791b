"""The closing table: columns with their definitions, as text, Markdown, CSV and JSON."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column: the key in a row, the header, what it means in one sentence, and the format of its numbers."""

    key: str
    header: str
    definition: str
    format: str = ".3f"


COLUMNS = (
    Column(
        "unit",
        "units",
        "The set of units: trained atoms, the site's own neurons, or random atoms with codes by orthogonal matching pursuit.",
    ),
    Column("r2_train", "R² train", "1 − Σ‖x − x̂‖² / Σ‖x − x̄‖² on training vectors, Euclidean."),
    Column("r2_test", "R² held out", "The same on held-out vectors."),
    Column(
        "r2_train_s",
        "R²_S train",
        "R² with S-norms, S the inverse second moment of the reference corpus: every direction counts alike.",
    ),
    Column("r2_test_s", "R²_S held out", "The same on held-out vectors."),
    Column("l0", "L0", "Mean number of non-zero codes a held-out vector.", ".1f"),
    Column("dead", "dead", "Share of units that fire on none of the measured training vectors.", ".1%"),
    Column("coherence", "μ", "Mutual coherence: the largest |cos_S| of two units; exact."),
    Column(
        "stability_pairwise",
        "q* pairs",
        "Stability over pairs of units: an index, not a certificate; random units score high.",
        ".1%",
    ),
    Column(
        "stability_per_atom",
        "q* atoms",
        "Stability over each unit's largest |cos_S|: the stricter reading of the same index.",
        ".1%",
    ),
    Column(
        "certified_level_1",
        "cert. 1",
        "Share of vectors with μ(2K − 1) < 1: the code is the unique sparsest one and l1 finds it; sufficient, a lower bound.",
        ".1%",
    ),
    Column(
        "certified_level_4",
        "cert. 4",
        "Share of vectors with a dual certificate: the code is the unique (non-negative) l1-minimal one; sufficient, a lower bound; supports beyond 256 count as not certified.",
        ".1%",
    ),
    Column(
        "restricted_isometry_k",
        "δ_K",
        "Interval that contains the restricted isometry constant at the median K of held-out vectors: a witness below, Gershgorin above.",
        ".2f",
    ),
)


def cell(row: Row, column: Column) -> str:
    """A value as the reader sees it; a dash where it does not apply."""
    value = row.get(column.key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, dict):
        return f"[{value['low']:{column.format}}, {value['high']:{column.format}}] K={value['k']}"
    return f"{value:{column.format}}" if isinstance(value, float) else str(value)


def render_text(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> str:
    """Aligned plain text for the terminal."""
    table = [[column.header for column in columns], *([cell(row, column) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def render_markdown(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> str:
    lines = [
        [column.header for column in columns],
        ["---"] * len(columns),
        *([cell(row, column) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> None:
    """Full precision, one column a number: an interval becomes three columns."""
    flat = [
        {key: part for c in columns for key, part in _flatten(c.key, row.get(c.key)).items()}
        | {"samples": row.get("samples")}
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    write_text(path, text.getvalue())


def write_json(path: Path, payload: Any) -> None:
    """Strict JSON: NaN and infinity become null."""
    write_text(path, json.dumps(_finite(payload), indent=2, ensure_ascii=False) + "\n")


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
    return {f"{key}_{part}": number for part, number in value.items()} if isinstance(value, dict) else {key: value}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
