"""docs/metrics.md has every column as the code defines it, with what kind of number it is and its null."""

import re
from pathlib import Path

from atomlab.report.all_columns import COLUMNS, GROUPS
from atomlab.report.table import escaped

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
KINDS = {
    "exact", "estimate", "estimate, with interval", "interval", "lower bound", "upper bound", "lower and upper bound", "index",
    "proxy", "label", "count",
}  # fmt: skip


def lines_of(title: str) -> list[list[str]]:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (mine,) = [part for part in section if part.startswith(f"{title}\n")]
    lines = [line for line in mine.splitlines() if line.startswith("| ")][1:]
    return [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]


def test_the_page_defines_every_column_as_the_report_does() -> None:
    found = {title: lines_of(title) for title in GROUPS.values()}
    written = {(line[0], line[1]) for lines in found.values() for line in lines}
    assert written == {(escaped(column.header), escaped(column.definition)) for column in COLUMNS}
    for group, title in GROUPS.items():
        mine = [escaped(column.definition) for column in COLUMNS if column.group == group]
        assert [line[1] for line in found[title]] == [
            text for text in mine if text in {line[1] for line in found[title]}
        ]
    for line in (line for lines in found.values() for line in lines):
        assert line[2] in KINDS, line
        assert line[3], line


def test_a_null_that_is_a_column_is_one() -> None:
    """What the page calls the null of an index is a column that a reader finds."""
    headers = {escaped(column.header) for column in COLUMNS}
    lines = [line for title in GROUPS.values() for line in lines_of(title) if line[2] in ("index", "proxy")]
    assert len(lines) >= 6
    assert all(line[3] in headers for line in lines)


def test_what_others_call_our_numbers_names_numbers_of_ours() -> None:
    ours = {line[0] for line in lines_of("The same numbers by other names")}
    keys = {f"`{column.key}`" for column in COLUMNS}
    assert {"`r2`", "`loss_recovered_zero`"} < ours <= keys | {"–"}
