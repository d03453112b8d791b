"""One column of a table."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Column:
    """A column of the tables: where its value stands in a row, and how it is shown and explained.

    Attributes:
        key: the key of its value in a row.
        header: what the reader sees above it.
        definition: what the number means, in one sentence that needs no other column.
        format: Python's format of its numbers.
        group: the table that it stands in, a key of `atomlab.report.all_columns.GROUPS`.
        closing: whether the short table that train.py prints at its end has it.
    """

    key: str
    header: str
    definition: str
    format: str = ".3f"
    group: str = "faithfulness"
    closing: bool = False


UNIT = Column("unit", "units", "The set of units, as described in the text below the tables.", closing=True)
RESAMPLED = (
    "over held-out documents, drawn again with replacement (expanded percentiles)"  # ends definitions of intervals
)
