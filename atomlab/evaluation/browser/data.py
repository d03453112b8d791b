"""What the report's atom browser shows of each atom."""

from typing import Any

import torch
from torch import Tensor

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.contexts import Firing
from atomlab.evaluation.browser.monosemanticity import Monosemanticity
from atomlab.theory import AtomicInnerProduct, unit_rows

_NEAREST = 5
_BEFORE, _AFTER = 16, 6  # tokens of a context
Logits = tuple[Tensor, Tensor, Tensor, Tensor]


def browser_data(
    dictionary: Tensor,
    thresholds: Tensor,
    metric: AtomicInnerProduct,
    found: Firing,
    entropies: Monosemanticity,
    rows: Rows,
    tokenizer: Any,
    logits: Logits | None,
) -> dict[str, Any]:
    """The structure that `atomlab.report.html.atom_data` describes, plain lists and numbers.

    Args:
        dictionary, thresholds: of the atoms.
        metric: of their coherence.
        found: where they fire on `rows`.
        entropies: of these firings.
        rows: of the held-out split.
        tokenizer: of the model.
        logits: `logit_effects`, for the residual stream.
    """
    cosines, neighbours = nearest_atoms(dictionary, metric, _NEAREST)
    vocabulary = _Vocabulary(tokenizer)
    contexts = _contexts(found, rows, vocabulary)
    up, down = (None, None) if logits is None else (_ids(logits[1], vocabulary), _ids(logits[3], vocabulary))
    empty: list[None] = [None] * len(dictionary)
    return {
        "samples": len(found.rows),
        "columns": _columns(thresholds, cosines, found, entropies, logits),
        "nearest": [
            [[j, _short(c)] for j, c in zip(ids, values, strict=True)]
            for ids, values in zip(neighbours.tolist(), cosines.tolist(), strict=True)
        ],
        "up": up or empty,
        "down": down or empty,
        "contexts": contexts,
        "vocabulary": vocabulary.texts,
    }


@torch.no_grad()
def nearest_atoms(dictionary: Tensor, metric: AtomicInnerProduct, k: int, block: int = 2048) -> tuple[Tensor, Tensor]:
    """The k atoms of largest |cos_S| with each atom: signed cosines and numbers (d_sae, k). 2·d_in·d_sae² FLOPs."""
    unit = unit_rows(dictionary, metric)
    values, numbers = [], []
    for start in range(0, len(unit), block):
        gram = unit[start : start + block] @ unit.T
        magnitude = gram.abs()
        magnitude.diagonal(start).fill_(-1)
        best = magnitude.topk(min(k, len(unit) - 1), dim=1).indices
        values.append(gram.gather(1, best))
        numbers.append(best)
    return torch.cat(values), torch.cat(numbers)


class _Vocabulary:
    """Tokens that occur, numbered as they come, as the text a reader sees."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts, self._number = tokenizer, [], {}

    def number(self, token: int) -> int:
        if token not in self._number:
            self._number[token] = len(self.texts)
            self.texts.append(self.tokenizer.decode([token]).replace("\n", "↵"))
        return self._number[token]


def _contexts(found: Firing, rows: Rows, vocabulary: _Vocabulary) -> list[list[list[float | int]]]:
    values, places = found.top_values.T, found.top_rows.T
    fires = values > 0
    texts = rows.contexts(found.rows[places[fires]], before=_BEFORE, after=_AFTER)
    entries = [
        [_short(value), place, *map(vocabulary.number, ids.tolist())]
        for value, (ids, place) in zip(values[fires].tolist(), texts, strict=True)
    ]
    remaining = iter(entries)
    return [[next(remaining) for _ in range(count)] for count in fires.sum(1).tolist()]


def _ids(ids: Tensor, vocabulary: _Vocabulary) -> list[list[int]]:
    return [[vocabulary.number(token) for token in line] for line in ids.tolist()]


def _columns(
    thresholds: Tensor, cosines: Tensor, found: Firing, entropies: Monosemanticity, logits: Logits | None
) -> list[dict[str, Any]]:
    n = len(thresholds)
    rate = found.counts.double() / len(found.rows)
    columns = [
        ("atom", "atom", "Number of the atom: the row of W_dec.", torch.arange(n)),
        ("rate", "rate", "Share of held-out vectors on which it fires.", rate),
        ("firings", "firings", "Their number.", found.counts),
        ("mean", "mean", "Mean value when it fires.", found.mean),
        ("max", "max", "Largest value.", found.top_values[0]),
        ("threshold", "θ", "Its threshold.", thresholds),
        ("coherence", "μ_i", "|cos_S| with its nearest atom.", cosines[:, 0].abs()),
        ("h_token", "H token", "Entropy (bits) of the token given that it fires.", entropies.token_entropy),
        ("h_token_null", "null", "The same if its firings fell at random.", entropies.token_entropy_null),
        ("h_doc", "H doc.", "Entropy (bits) of the document given that it fires.", entropies.document_entropy),
    ]
    if logits is not None:
        columns.append(("logit", "logit", "Largest direct effect on a logit, d at unit RMS.", logits[0][:, 0]))
    return [
        {"key": key, "header": header, "definition": definition, "values": [_short(v) for v in values.tolist()]}
        for key, header, definition, values in columns
    ]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def token_texts(tokenizer: Any, contexts: list[tuple[Tensor, int]]) -> list[str]:
    """Contexts as plain text."""
    return tokenizer.batch_decode([ids.tolist() for ids, _ in contexts])


def context_texts(found: Firing, rows: Rows, model: LanguageModel, fewest: int = 2) -> list[list[str]]:
    """The texts of each atom's strongest contexts that do not overlap, for atoms with at least `fewest` of them."""
    groups = []
    for values, places in zip(found.top_values.T, found.top_rows.T, strict=True):
        fires = found.rows[places[values > 0]]
        chosen = fires[apart(fires, rows.origin(fires).document, _BEFORE + _AFTER)]
        if len(chosen) >= fewest:
            groups.append(token_texts(model.tokenizer, rows.contexts(chosen, before=_BEFORE, after=_AFTER)))
    return groups


def apart(rows: Tensor, documents: Tensor, distance: int) -> list[int]:
    """Which of the rows lie in another document than, or further than `distance` from, every one kept before:
    neighbouring rows of a document are neighbouring tokens, whose contexts are the same text.

    >>> apart(torch.tensor([50, 52, 10, 40, 73, 51]), torch.tensor([0, 0, 0, 0, 0, 1]), 22)
    [0, 2, 4, 5]
    """
    kept: list[int] = []
    for i in range(len(rows)):
        near = (rows[kept] - rows[i]).abs() <= distance
        if not (near & (documents[kept] == documents[i])).any():
            kept.append(i)
    return kept
