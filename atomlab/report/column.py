"""What a column of a table is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column: the key in a row, the header, what it means in one sentence, the format of its numbers, and its group.

    Groups are the tables of the report; `closing` marks what train.py prints at its end.
    """

    key: str
    header: str
    definition: str
    format: str = ".3f"
    group: str = "faithfulness"
    closing: bool = False


UNIT = Column("unit", "units", "The set of units, as described in the text below the tables.", closing=True)
