"""What a table lets a reader conclude: which controls the atoms beat, and what is memory."""

from collections.abc import Sequence

from atomlab.evaluation.rows.differences import NORMS, competes
from atomlab.report import Row

FORGETFUL = "random + OMP"  # atoms that saw no vectors
SURROGATE = "Gaussian TSAE"  # trained by the same code on vectors without structure


def conclude(rows: Sequence[Row]) -> str:
    """Says what the table lets a reader say, whatever the numbers are.

    Each control is named as one that explains less than the atoms, one that explains more, or one of which the held-out
    documents do not tell: the 95% interval of the difference holds 0. Neurons (R² = 1 by construction) and surrogates
    measured on their own vectors are no competitors.

    Args:
        rows: of the table, as `with_differences` and `with_memory` return them, the atoms' row first.

    Returns:
        A few sentences.
    """
    trained = rows[0]
    compared = [row for row in rows if "against" in row]
    by_atoms = {name: [row for row in compared if row["against"] == name] for name in _against(rows)}
    verdicts = " ".join(_verdict(name, rows, controls) for name, controls in by_atoms.items() if controls)
    between = (
        f"Intervals are of 95%, over resampled held-out documents ({trained['samples_documents']:,} of them)."
        if compared
        else "No control was measured beside them."
    )
    return _doubt(trained) + (
        f"Held out, the atoms explain {_with_interval(trained, 'r2')} of the variance ({_with_interval(trained, 'r2_s')} in "
        f"the S-norm) with {trained['l0']:.1f} of {trained['d_sae']} latents a vector. {verdicts}{' ' * bool(verdicts)}"
        f"{between} On training vectors the atoms explain {trained['r2_train']:.1%} ({trained['r2_s_train']:.1%}); "
        f"{memory_in_words(trained)} For {_certified(trained)} of the vectors the code is certified as the unique "
        f"non-negative ℓ1-minimal one (level 4){_surrogates_rate(rows)}; q* is an index and certifies nothing."
    )


def _against(rows: Sequence[Row]) -> list[str]:
    """Names of the atoms' rows that controls are compared with, in the order of the table."""
    names = {row.get("against") for row in rows}
    return [str(row["unit"]) for row in rows if row["unit"] in names]


def _verdict(name: str, rows: Sequence[Row], controls: Sequence[Row]) -> str:
    own = next(row for row in rows if row["unit"] == name)
    explained = f"the atoms explain {_with_interval(own, 'r2')} ({_with_interval(own, 'r2_s')} in the S-norm)"
    what = (
        "With these one-step codes,"
        if own is rows[0]
        else f"With {own['coder']} codes, non-negative as well, {explained};"
    )
    found = {norm: _compared(key, controls) for key, norm in NORMS.items()}
    if len({*found.values()}) == 1:
        return f"{what} in both norms they {next(iter(found.values()))}."
    return f"{what} {'; '.join(f'in the {norm} they {said}' for norm, said in found.items())}."


def _compared(key: str, controls: Sequence[Row]) -> str:
    """Whom the atoms' codes explain more than, less than, and are not told apart from, in one norm."""
    differences = {_named(row): row[f"{key}_difference"] for row in controls}
    more = [name for name, ends in differences.items() if ends["low"] is not None and ends["low"] > 0]
    less = [name for name, ends in differences.items() if ends["high"] is not None and ends["high"] < 0]
    open_ = [name for name in differences if name not in more + less]
    said = (
        [f"explain more than {'every control' if len(more) == len(differences) > 1 else ', '.join(more)}"]
        if more
        else []
    )
    said += [f"explain less than {', '.join(less)}"] if less else []
    said += [f"are not told apart from {', '.join(open_)}"] if open_ else []
    return " and ".join(said)


def _named(row: Row) -> str:
    return f"{row['unit']} (signed)" if row["signed"] else row["unit"]


def _with_interval(row: Row, key: str) -> str:
    ends = row.get(f"{key}_interval")
    return f"{row[key]:.1%}" + (f" [{ends['low']:.1%}, {ends['high']:.1%}]" if ends else "")


def _certified(trained: Row) -> str:
    return "0.0%" if trained["certified_level_4"] is None else _with_interval(trained, "certified_level_4")


def _surrogates_rate(rows: Sequence[Row]) -> str:
    """The level 4 rate of the surrogate, which was trained on vectors without structure, if it was measured."""
    found = next((row for row in rows if row["unit"] == SURROGATE), None)
    if found is None or found["certified_level_4"] is None:
        return ""
    return (
        f", and for {_with_interval(found, 'certified_level_4')} with the {SURROGATE}, whose training vectors had no "
        "structure beyond their covariance: as much of the share comes from the training alone"
    )


def _doubt(trained: Row) -> str:
    """A first sentence about atoms that reconstruct the vectors they were trained on worse than their mean does."""
    if trained["r2_train"] > -0.01:  # where no latent fires it is 0, up to rounding
        return ""
    return (
        f"The atoms reconstruct worse than the mean vector alone would (R² {trained['r2_train']:,.3g} on training vectors): "
        "the training diverged, or was too short; lower training.schedule.learning_rate or raise steps. "
    )


def with_memory(rows: Sequence[Row]) -> list[Row]:
    """Adds `memory` (Euclidean) and `memory_s` (S-norm) to rows: gap(unit) − gap(random + OMP).

    A gap is R² on training vectors less R² on held-out vectors.

    A gap alone is no memory: held-out text is another text, and may be harder or easier for any dictionary. What that
    costs is the gap of random atoms, which saw neither the training nor the held-out vectors. The rest, the excess, is what
    a unit owes to having seen the training vectors; below or near zero there is no sign of memory.

    Args:
        rows: of one table, measured on the same vectors.

    Returns:
        Copies of the rows with both numbers, as shares of the variance. The rows themselves are returned if none is of
        random atoms; neurons, and a surrogate on its own vectors, get no value.

    >>> rows = [{"unit": "atoms", "r2_train": 0.9, "r2": 0.5, "r2_s_train": 0.8, "r2_s": 0.5}]
    >>> rows += [{"unit": "random + OMP", "r2_train": 0.5, "r2": 0.25, "r2_s_train": 0.5, "r2_s": 0.5}]
    >>> [round(row["memory"], 3) for row in with_memory(rows)], round(with_memory(rows)[0]["memory_s"], 3)
    ([0.15, 0.0], 0.3)
    """
    forgetful = next((row for row in rows if row["unit"] == FORGETFUL), None)
    if forgetful is None:
        return list(rows)
    return [row | _excess(row, forgetful) if competes(row["unit"]) else row for row in rows]


def _excess(row: Row, forgetful: Row) -> Row:
    return {f"memory{norm}": _gap(row, norm) - _gap(forgetful, norm) for norm in ("", "_s")}


def _gap(row: Row, norm: str) -> float:
    return row[f"r2{norm}_train"] - row[f"r2{norm}"]


def memory_in_words(trained: Row) -> str:
    """What a report says of the difference between training and held-out vectors, given the atoms' row."""
    if "memory" not in trained:
        return (
            "how much of the difference is memory is not known without the row random + OMP, since held-out vectors may "
            "be harder for any dictionary."
        )
    return (
        f"beyond what random + OMP, which cannot remember, loses on held-out vectors, the atoms lose "
        f"{trained['memory']:.1%} of the variance ({trained['memory_s']:.1%}); where that is above zero it is memory."
    )
