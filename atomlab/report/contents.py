"""What a study hands to the report: the results that it measured, and what the page says beside them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from atomlab.report.all_columns import COLUMNS
from atomlab.report.atom_browser import AtomBrowser
from atomlab.report.column_type import Column
from atomlab.report.table import Row


@final
@dataclass(frozen=True)
class Results:
    """What a study measured, and where it comes from.

    Attributes:
        rows: the rows of the tables, one for each set of units.
        conclusion: what the rows show, as plain text.
        provenance: what a reader needs to repeat the numbers, by name.
        identity: the record of what was measured (`atomlab.identity`), for results.json.
        columns: the columns of the tables; those without a value in any row are left out.
        records: rows for results.json by key, if they are not `rows` alone. The first of them go to results.csv.
    """

    rows: Sequence[Row]
    conclusion: str
    provenance: Mapping[str, str]
    identity: Mapping[str, Any]
    columns: Sequence[Column] = COLUMNS
    records: Mapping[str, Sequence[Row]] | None = None


@final
@dataclass(frozen=True)
class Fact:
    """A number at the top of the page.

    Attributes:
        name: what it is.
        value: the number, as the reader sees it.
        interval: its interval; empty where there is none.
        beside: other numbers that it is to be read beside.
    """

    name: str
    value: str
    interval: str
    beside: str


@final
@dataclass(frozen=True)
class Page:
    """What report.html says beside the results.

    Attributes:
        title: plain text.
        configuration: of the run, as YAML.
        tables: further tables by heading, each with rows and columns of its own.
        notes: what each row is, by the name of its units.
        browser: the atom browser; None leaves it out.
        facts: the numbers at the top of the page.
        overview: captions of the figures that stand beside one another below these numbers; all others have a section.
        missing: a sentence about each part that was left out. Figures that cannot be drawn add theirs (`attempt`).
    """

    title: str
    configuration: str
    tables: Mapping[str, tuple[Sequence[Row], Sequence[Column]]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    browser: AtomBrowser | None = None
    facts: Sequence[Fact] = ()
    overview: Collection[str] = ()
    missing: list[str] = field(default_factory=list)
