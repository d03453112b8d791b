"""The certified rates of every unit by support size: as a table for the page, and in bins for figures."""

import math
from collections.abc import Mapping, Sequence

from scipy.stats import binomtest

from atomlab.evaluation.rows.certify import LEVELS
from atomlab.report import COLUMNS, Column, Row

_HEADING = "Rates by support size"
_DEFINITIONS = {column.key: column for column in COLUMNS}
_LEAST = 10  # vectors of a bin, unless there are fewer in all
_RATES = (*LEVELS.values(), "certified_level_4_signed")


def _with_interval(key: str) -> tuple[Column, Column]:
    rate = _DEFINITIONS[key]
    said = f"95% Wilson interval of “{rate.header}”, which takes vectors as independent."
    return rate, Column(f"{key}_interval", f"{rate.header} 95%", said, ".1%")


_COLUMNS = (
    _DEFINITIONS["unit"],
    Column("k", "K", "Support size of the code, in ranges that double."),
    Column("samples", "vectors", "Held-out vectors whose code has that size, for levels 1 to 4."),
    *(column for key in _RATES if key != LEVELS["solved"] for column in _with_interval(key)),
    Column("samples_solved", "solved for", "Those of them for which level 5 was solved."),
    *_with_interval(LEVELS["solved"]),
)


def size_tables(rows: Sequence[Row]) -> dict[str, tuple[list[Row], tuple[Column, ...]]]:
    """By heading, rows and columns of one table; nothing if no row has rates by K. Each K alone is in results.json."""
    lines = [{"unit": row["unit"]} | line for row in rows if "by_k" in row for line in in_ranges(row["by_k"])]
    return {_HEADING: (lines, _COLUMNS)} if lines else {}


def in_ranges(by_k: Row) -> list[Row]:
    """Averages rates by support size over the ranges K = 1, 2, 3–4, 5–8, ....

    Args:
        by_k: lists by K from 0: `samples` and `samples_solved`, numbers of vectors, and the rates of the levels.

    Returns:
        A line for each range that has vectors, with the range as text (`k`), its numbers of vectors, and the means of
        the rates, weighted by the number of vectors that each is measured on; None where there is no such vector. Each
        rate has its 95% Wilson interval beside it (`<rate>_interval`, with `low` and `high`), for vectors that are
        independent.

    >>> rates = {"samples": [9, 0, 1, 3], "samples_solved": [9, 0, 1, 1], "certified_level_3": [0.0, 0.0, 1.0, 0.5]}
    >>> [(line["k"], line["samples"], line["certified_level_3"]) for line in in_ranges(rates)]
    [('2', 1, 1.0), ('3–4', 3, 0.5)]
    """
    largest = len(by_k["samples"]) - 1
    lines, low = [], 1
    while low <= largest:
        high = 2 ** math.ceil(math.log2(low))
        sizes = range(low, min(high, largest) + 1)
        if samples := sum(by_k["samples"][k] for k in sizes):
            solved = sum(by_k["samples_solved"][k] for k in sizes)
            line: Row = {
                "k": str(low) if low == high else f"{low}–{high}",
                "samples": samples,
                "samples_solved": solved,
            }
            for key in _RATES:
                if key in by_k:
                    counts = by_k["samples_solved" if key == LEVELS["solved"] else "samples"]
                    line[key], ends = _pooled(sizes, counts, by_k[key])
                    if ends is not None:
                        line[f"{key}_interval"] = {"low": ends[0], "high": ends[1]}
            lines.append(line)
        low = high + 1
    return lines


def in_bins(by_k: Mapping[str, Sequence[float]], bins: int = 8) -> list[Row]:
    """Joins support sizes into bins of about equally many vectors, so that no point stands on one or two of them.

    Args:
        by_k: lists by K from 0: `samples`, numbers of vectors, and `rate`, the share of them that is certified.
        bins: number of bins, about.

    Returns:
        Of each bin `low` and `high`, its sizes; `samples`; `rate`; and `interval`, the 95% Wilson interval of the rate for
        vectors that are independent. K = 0 is left out. A bin has at least 10 vectors, unless there are fewer in all. A last
        bin of less than half the usual number is joined to the one before it.

    >>> found = in_bins({"samples": [3, 0, 40, 40, 10], "rate": [0.0, 0.0, 1.0, 0.5, 0.0]}, bins=4)
    >>> [(one["low"], one["high"], one["samples"], one["rate"]) for one in found]
    [(2, 2, 40, 1.0), (3, 4, 50, 0.4)]
    """
    counts, rates = list(by_k["samples"]), by_k["rate"]
    usual = max(_LEAST, sum(counts[1:]) / bins)
    groups: list[list[int]] = [[]]
    for k in (k for k in range(1, len(counts)) if counts[k]):
        groups[-1].append(k)
        if sum(counts[one] for one in groups[-1]) >= usual:
            groups.append([])
    last = groups.pop()
    if groups and sum(counts[one] for one in last) < max(_LEAST, usual / 2):
        groups[-1] += last
    elif last:
        groups.append(last)
    found = []
    for sizes in groups:
        rate, interval = _pooled(sizes, counts, rates)
        samples = int(sum(counts[k] for k in sizes))
        found.append({"low": sizes[0], "high": sizes[-1], "samples": samples, "rate": rate, "interval": interval})
    return found


def _pooled(
    sizes: Sequence[int], counts: Sequence[float], rates: Sequence[float]
) -> tuple[float, tuple[float, float]] | tuple[None, None]:
    """The rate over all vectors of some sizes, and its Wilson interval; None for both where there is no vector."""
    total = int(sum(counts[k] for k in sizes))
    if not total:
        return None, None
    certified = sum(counts[k] * rates[k] for k in sizes if counts[k])
    ends = binomtest(round(certified), total).proportion_ci(method="wilson")
    return certified / total, (float(ends.low), float(ends.high))
