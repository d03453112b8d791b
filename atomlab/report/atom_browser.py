"""The data of the page's atom browser, which `atom_browser.js` reads from the page."""

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
        columns: numbers of the atoms; the first column is the number of the atom, 0 to n − 1.
        nearest: of each atom, the numbers of the atoms nearest to it, each with its signed cosine.
        raised: of each atom, the tokens whose logits it raises most; None where that is not known.
        lowered: of each atom, the tokens whose logits it lowers most; None where that is not known.
        contexts: of each atom, its strongest contexts: the value, the place of the token on which the atom fires, then
            the tokens of the context.
        vocabulary: texts of the tokens.
    """

    samples: int
    columns: Sequence[AtomColumn]
    nearest: Sequence[Sequence[tuple[int, float]]]
    raised: Sequence[Sequence[int] | None]
    lowered: Sequence[Sequence[int] | None]
    contexts: Sequence[Sequence[Sequence[float]]]
    vocabulary: Sequence[str]

    def json(self) -> Markup:
        """Returns the data as JSON in which no character can end the `<script>` element that holds it."""
        data = vars(self) | {"columns": [vars(column) for column in self.columns]}
        text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
