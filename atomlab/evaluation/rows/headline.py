"""What stands at the top of a report: the few numbers that decide, each with its interval and what it is to be read beside."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from atomlab.evaluation.rows.conclusion import FORGETFUL, SURROGATE
from atomlab.evaluation.rows.differences import is_atoms
from atomlab.evaluation.rows.rates_by_support_size import in_bins
from atomlab.report import Fact, Row, binned_rates_figure, memory_figure, sparsity_figure

_BESIDE = (SURROGATE, "k-means + OMP", FORGETFUL)
_CURVES = 4  # rows in the figure of certified rates


def headline(rows: Sequence[Row]) -> list[Fact]:
    """Chooses the numbers for the top of a report.

    Args:
        rows: of the table, the atoms' row first.

    Returns:
        R² held out in both norms, L0, and the share of certified codes, of the atoms' own codes; beside each the best other
        codes of the atoms and the controls. The share of atoms that other seeds find again has its range over these runs in
        place of an interval. Of the surrogate always, if it was measured: the certificates mean little where it is certified
        as often.
    """
    own, others = rows[0], _beside(rows)
    facts = [
        Fact(name, f"{own[key]:.1%}", _interval(own, key), _compared(others, key))
        for name, key in (("R² held out", "r2"), ("R² held out, S-norm", "r2_s"))
    ]
    facts.append(
        Fact("L0: atoms a vector", f"{own['l0']:.1f}", _interval(own, "l0", ".1f"), f"of {own['d_sae']:,} atoms")
    )
    if own["certified_level_4"] is not None:
        key = "certified_level_4"
        name = "Codes certified as the unique one (level 4)"
        facts.append(Fact(name, f"{own[key]:.1%}", _interval(own, key), _compared(others, key)))
    if own.get("consistency_share") is not None:
        facts.append(_coming_back(own))
    return facts


def _coming_back(own: Row) -> Fact:
    """The share of atoms that other seeds find again; an interval over runs would need more runs than there ever are."""
    runs, ends = own["samples_seeds"], own["consistency_share_runs"]
    span = f"({ends['low']:.1%} to {ends['high']:.1%} in {runs} runs)" if runs > 1 else "(one other run, so no range)"
    beside = f"random dictionaries {own['consistency_share_random']:.1%}"
    return Fact("Atoms that come back with another seed", f"{own['consistency_share']:.1%}", span, beside)


def overview_figures(rows: Sequence[Row]) -> dict[str, Callable[[], Any]]:
    """Prepares the three figures at the top of a report.

    Args:
        rows: of the table, the atoms' row first.

    Returns:
        By caption, a function that draws: R² held out against L0 of every row; certified rate against the size of the code;
        and R² held out against R² on training vectors.
    """
    shown = [row for row in rows if row["unit"] != "neurons"]
    figures: dict[str, Callable[[], Any]] = {
        "Held-out R² against L0, of every dictionary and coder; bars are 95% intervals over documents": partial(
            sparsity_figure, [_point(row) for row in shown]
        )
    }
    curves = {row["unit"]: in_bins(row["level_4_by_k"]) for row in _with_rates(shown)}
    if curves:
        figures[
            "Codes certified at level 4 against their size K, in bins of about equally many vectors, n of them of the first row; "
            "bars are 95% Wilson intervals that take vectors as independent"
        ] = partial(binned_rates_figure, curves)
    figures["Held-out R² against R² on training vectors: below the line, the row explains less of new text"] = partial(
        memory_figure, [_point(row) for row in shown]
    )
    return figures


def _beside(rows: Sequence[Row]) -> list[Row]:
    named = [row for name in _BESIDE for row in rows if row["unit"] == name]
    return [row for row in rows[1:] if is_atoms(row)][:1] + named


def _with_rates(rows: Sequence[Row]) -> list[Row]:
    chosen = [rows[0], *(row for row in _beside(rows) if row in rows)]
    return [row for row in chosen if row.get("level_4_by_k")][:_CURVES]


def _interval(row: Row, key: str, form: str = ".1%") -> str:
    ends = row.get(f"{key}_interval")
    return f"[{ends['low']:{form}}, {ends['high']:{form}}]" if ends else ""


def _compared(others: Sequence[Row], key: str) -> str:
    return "; ".join(f"{row['unit']} {row[key]:.1%}" for row in others if row.get(key) is not None)


def _point(row: Row) -> Mapping[str, Any]:
    """What the figures draw of a row."""
    source, _, coder = str(row["unit"]).partition(" + ")
    numbers = {key: row[key] for key in ("l0", "r2", "r2_s", "r2_train", "r2_s_train")}
    ends = {f"{key}_interval": row.get(f"{key}_interval") for key in ("r2", "r2_s")}
    return {"unit": row["unit"], "source": source, "coder": coder or "own codes"} | numbers | ends
