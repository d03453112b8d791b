"""The text in which the browser looks for firings, as a page holds it: each token once, and where documents start."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.activations.tokens.token_texts import TokenTexts


class Vocabulary:
    """Numbers the texts of tokens in the order in which they come.

    Args:
        tokenizer: of the language model.

    Attributes:
        texts: the text of each number, as the tokenizer joins it, with ↵ for a line break.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._token_texts = TokenTexts(tokenizer)

    def of_sequence(self, ids: list[int]) -> list[int]:
        """Returns the number of each token of a sequence; characters of several tokens stand at the last of them."""
        return [self._number(text) for text in self._token_texts(ids)]

    def of_token(self, token: int) -> int:
        """Returns the number of a token's text as it is inside a text."""
        return self._number(self._token_texts.text(token))

    def _number(self, text: str) -> int:
        shown = text.replace("\n", "↵")
        if shown not in self._numbers:
            self._numbers[shown] = len(self.texts)
            self.texts.append(shown)
        return self._numbers[shown]


@final
@dataclass(frozen=True)
class ShownText:
    """All token sequences of which some sampled rows are, end to end.

    Attributes:
        tokens: number of each token's text in the vocabulary, in reading order.
        starts: places at which a sequence or a document in it begins, rising; the first is 0.
        places: (samples,) int64, place of the token of each sampled row.
        documents: (samples,) int64, number of the start that each place belongs to.
    """

    tokens: list[int]
    starts: list[int]
    places: NDArray[np.int64]
    documents: NDArray[np.int64]


def shown_text(rows: Rows, sampled: Int[Tensor, " samples"], vocabulary: Vocabulary) -> ShownText:
    """Gathers the sequences of some rows.

    Args:
        rows: of one split.
        sampled: (samples,) int64, numbers of the rows, rising.
        vocabulary: gets the texts of all tokens.

    Returns:
        The text. Cost: one decoding of each distinct token.
    """
    origins = rows.store.origins
    sequences, place = origins.sequences, origins.places(rows.numbers[sampled])
    number = torch.searchsorted(sequences.offsets, place, right=True) - 1
    used = torch.zeros(len(sequences.input_ids), dtype=torch.bool)
    tokens: list[int] = []
    for one in number.unique().tolist():
        span = slice(int(sequences.offsets[one]), int(sequences.offsets[one + 1]))
        used[span] = True
        tokens += vocabulary.of_sequence(sequences.input_ids[span].tolist())
    moved = used.long().cumsum(0) - 1
    bounds = origins.boundaries[:-1]
    starts = moved[bounds[used[bounds]]].numpy()
    places = moved[place].numpy()
    return ShownText(tokens, starts.tolist(), places, np.searchsorted(starts, places, side="right") - 1)
