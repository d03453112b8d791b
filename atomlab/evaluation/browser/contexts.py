"""Chooses the contexts in which an atom is shown: the strongest, some of each quarter of its values, and some at random.

The strongest contexts alone make every atom look cleaner than it is. No two contexts overlap or repeat one another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from atomlab.evaluation.browser.firings import AFTER, BEFORE, Firings
from atomlab.evaluation.browser.shown_text import ShownText

STRONGEST, RANDOM, QUARTERS = 0, 5, (4, 3, 2, 1)  # kinds of contexts; quarter 4 has the largest values
_A_QUARTER, _AT_RANDOM = 2, 4  # contexts of these kinds
_TRIED = 64  # firings that are looked at for each kind
_SAME = (5, 2)  # contexts with the same tokens this far before and after the firing one are repetitions


@final
@dataclass(frozen=True)
class AtomFirings:
    """Where one atom fires, in reading order.

    Attributes:
        places: of its tokens in the shown text, rising.
        values: with what value it fires on each.
        documents: number of the document of each.
    """

    places: NDArray[np.int64]
    values: NDArray[np.float32]
    documents: NDArray[np.int64]


def firings_by_atom(firings: Firings, text: ShownText) -> Iterator[AtomFirings]:
    """Yields the firings of each atom, in the order of the atoms; empty for an atom that never fires."""
    order = firings.atom.sort(stable=True).indices
    sample, value = firings.sample[order].numpy(), firings.value[order].numpy()
    stops = firings.counts.cumsum(0).tolist()
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        mine = sample[start:stop]
        yield AtomFirings(text.places[mine], value[start:stop], text.documents[mine])


def choose_contexts(fires: AtomFirings, text: ShownText, strongest: int, seed: int) -> list[tuple[int, int]]:
    """Chooses the contexts of one atom.

    Args:
        fires: where it fires.
        text: in which it fires.
        strongest: number of strongest contexts, at most.
        seed: of what is drawn at random.

    Returns:
        (kind, number of the firing) of each context: the strongest in falling order, then two of each quarter of the
        values from the upper to the lower one, then four at random; fewer where there are no others.
    """
    if not len(fires.values):
        return []
    generator = np.random.default_rng(seed)
    falling = np.argsort(-fires.values, kind="stable")
    quarters = np.array_split(falling, 4)
    wanted = [(STRONGEST, falling, strongest)]
    wanted += [(kind, generator.permutation(part), _A_QUARTER) for kind, part in zip(QUARTERS, quarters, strict=True)]
    wanted += [(RANDOM, generator.permutation(falling), _AT_RANDOM)]
    chosen: list[tuple[int, int]] = []
    seen: set[tuple[int, ...]] = set()
    for kind, candidates, count in wanted:
        found = 0
        for number in candidates[:_TRIED].tolist():
            if found == count:
                break
            key = _near_tokens(int(fires.places[number]), text)
            if key not in seen and not _overlaps(number, chosen, fires):
                seen.add(key)
                chosen.append((kind, number))
                found += 1
    return chosen


def context_fields(fires: AtomFirings, chosen: list[tuple[int, int]]) -> list[list[float | int]]:
    """Returns the contexts as the page holds them (`AtomBrowser.contexts`), with values of three digits."""
    fields: list[list[float | int]] = []
    for kind, number in chosen:
        place = int(fires.places[number])
        first, last = np.searchsorted(fires.places, (place - BEFORE, place + AFTER + 1))
        line: list[float | int] = [kind, place]
        for other in range(int(first), int(last)):
            if fires.documents[other] == fires.documents[number]:
                line += [int(fires.places[other]) - place, float(f"{fires.values[other]:.3g}")]
        fields.append(line)
    return fields


def histograms(firings: Firings, bins: int) -> list[list[int]]:
    """Counts the values of each atom in equal bins from 0 to its largest value.

    Args:
        firings: of the atoms.
        bins: number of bins.

    Returns:
        For each atom the count of each bin; all 0 for an atom that never fires.
    """
    largest = firings.top_values[0][firings.atom]
    place = (firings.value / largest * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(firings.atom * bins + place, minlength=len(firings.counts) * bins)
    return counts.view(-1, bins).tolist()


def _near_tokens(place: int, text: ShownText) -> tuple[int, ...]:
    return tuple(text.tokens[max(0, place - _SAME[0]) : place + _SAME[1] + 1])


def _overlaps(number: int, chosen: list[tuple[int, int]], fires: AtomFirings) -> bool:
    place, document = fires.places[number], fires.documents[number]
    return any(
        abs(fires.places[other] - place) <= BEFORE + AFTER and fires.documents[other] == document for _, other in chosen
    )
