"""What a table lets a reader conclude: what is memory, and which controls the atoms do not beat."""

from collections.abc import Sequence

from atomlab.report import Row

FORGETFUL = "random + OMP"  # atoms that saw no vectors
_NO_GAP_OF_ITS_OWN = ("neurons",)  # exact by construction, on any vectors
_OWN_VECTORS = "on its own"  # ends the name of a row that is measured on other vectors than the rest


def conclude(rows: list[Row]) -> str:
    """What the table lets a reader say, whatever the numbers are: each control that the atoms do not beat is named.

    Neurons (R² = 1 by construction) and surrogates measured on their own vectors are no competitors.
    """
    trained = rows[0]
    controls = [row for row in rows[1:] if _competes(row["unit"])]
    certified = trained["certified_level_4"] or 0.0
    lost = {
        norm: [row["unit"] for row in controls if row.get(f"r2{norm}", 0.0) >= trained[f"r2{norm}"]]
        for norm in ("", "_s")
    }
    verdicts = [
        f"{name} they do not explain more than {', '.join(better)}"
        if better
        else f"{name} they explain more than every control"
        for name, better in (("in the Euclidean norm", lost[""]), ("in the S-norm", lost["_s"]))
    ]
    against = ", ".join(verdicts) if controls else "no control was measured beside them"
    return _doubt(trained) + (
        f"Held out, the atoms explain {trained['r2']:.1%} of the variance ({trained['r2_s']:.1%} in the S-norm) "
        f"with {trained['l0']:.1f} of {trained['d_sae']} latents a vector; {against}. On training vectors it is "
        f"{trained['r2_train']:.1%} ({trained['r2_s_train']:.1%}); {memory_in_words(trained)} For {certified:.1%} of the "
        "vectors the code is certified as the unique non-negative ℓ1-minimal one (level 4); q* is an index and certifies "
        "nothing."
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
    return [row | _excess(row, forgetful) if _competes(row["unit"]) else row for row in rows]


def _competes(unit: str) -> bool:
    return unit not in _NO_GAP_OF_ITS_OWN and not unit.endswith(_OWN_VECTORS)


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
