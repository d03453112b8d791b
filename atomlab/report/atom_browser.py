"""The data of the page's atom browser, which its scripts read from the page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from markupsafe import Markup

from atomlab.report.table import finite


@final
@dataclass(frozen=True)
class AtomColumn:
    """One number of every atom, as a column that the browser sorts and searches by.

    Attributes:
        key: what a search calls it (`rate>0.01`): small letters and underscores only.
        header: what the reader sees above it.
        definition: what the number means, in one sentence.
        values: one number an atom; NaN where an atom has none, shown as a dash.
    """

    key: str
    header: str
    definition: str
    values: Sequence[float | None]


@final
@dataclass(frozen=True)
class AtomBrowser:
    """Everything that the browser shows of `n` atoms. Tokens stand as numbers, which count the texts in `vocabulary`.

    Attributes:
        samples: number of vectors that were searched for firings.
        columns: numbers of the atoms; the first column is the number of the atom, 0 to n − 1. A column `telling`, if there
            is one, gives the order in which the atoms are shown first.
        histograms: of each atom, how many of its values fall into equal bins from 0 to its largest value.
        nearest: of each atom, the numbers of the atoms nearest to it, each with its signed cosine.
        maps: of each atom, coordinates on a plane: its own x and y, and then those of its nearest atoms.
        raised: of each atom, the tokens whose logits it raises most, each with the effect; None where that is not known.
        lowered: of each atom, the tokens whose logits it lowers most, each with the effect; None where that is not known.
        contexts: of each atom, the contexts in which it is shown: the kind (0 strongest, 4 to 1 the quarters of its values
            from the largest, 5 at random), the place of the firing token in `tokens`, and then for each token around it on
            which the atom fires its offset from this place and the value.
        tokens: the text that was searched, end to end.
        starts: places in `tokens` at which a text starts that sees nothing of what is before it, rising.
        window: tokens that are shown before and after a firing token.
        vocabulary: texts of the tokens, as the tokenizer joins them.
    """

    samples: int
    columns: Sequence[AtomColumn]
    histograms: Sequence[Sequence[int]]
    nearest: Sequence[Sequence[tuple[int, float]]]
    maps: Sequence[Sequence[float]]
    raised: Sequence[Sequence[tuple[int, float]] | None]
    lowered: Sequence[Sequence[tuple[int, float]] | None]
    contexts: Sequence[Sequence[Sequence[float]]]
    tokens: Sequence[int]
    starts: Sequence[int]
    window: tuple[int, int]
    vocabulary: Sequence[str]

    def json(self) -> Markup:
        """Returns the data as JSON in which no character can end the `<script>` element that holds it."""
        data = vars(self) | {"columns": [vars(column) for column in self.columns]}
        text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
