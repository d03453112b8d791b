"""Gathers everything that the atom browser shows of each atom: numbers, nearest atoms, logits and contexts."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.entropies import Entropies
from atomlab.evaluation.browser.firings import AFTER, BEFORE, Firings
from atomlab.evaluation.browser.logit_effects import LogitEffects
from atomlab.report import AtomBrowser, AtomColumn
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, unit_rows

_NEAREST = 5  # atoms shown beside each atom


def atom_browser(
    sae: ThresholdSAE,
    metric: AtomicInnerProduct,
    firings: Firings,
    entropies: Entropies,
    rows: Rows,
    tokenizer: Any,
    effects: LogitEffects | None,
) -> AtomBrowser:
    """Gathers the data of the atom browser.

    Args:
        sae: whose atoms and thresholds are shown.
        metric: S, in which coherence and nearest atoms are computed.
        firings: of its atoms on `rows`.
        entropies: of these firings.
        rows: of the held-out split.
        tokenizer: of the language model.
        effects: on the logits; None where an atom has no direct path to them, or it is not known.

    Returns:
        The data, with numbers of four digits. Cost: 2·d_in·d_sae² FLOPs for the nearest atoms.
    """
    cosines, neighbours = nearest_atoms(sae.W_dec.detach(), metric, _NEAREST)
    vocabulary = _Vocabulary(tokenizer)
    contexts = _contexts(firings, rows, vocabulary)
    unknown: list[None] = [None] * sae.d_sae
    return AtomBrowser(
        samples=len(firings.rows),
        columns=_columns(sae.threshold.detach(), cosines, firings, entropies, effects),
        nearest=[
            [(atom, short(cosine)) for atom, cosine in zip(numbers, values, strict=True)]
            for numbers, values in zip(neighbours.tolist(), cosines.tolist(), strict=True)
        ],
        raised=unknown if effects is None else _tokens(effects.raised_ids, vocabulary),
        lowered=unknown if effects is None else _tokens(effects.lowered_ids, vocabulary),
        contexts=contexts,
        vocabulary=vocabulary.texts,
    )


@torch.no_grad()
def nearest_atoms(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct, k: int, block: int = 2048
) -> tuple[Float[Tensor, "d_sae k"], Int[Tensor, "d_sae k"]]:
    """Finds the atoms of largest |cos_S| with each atom.

    Args:
        dictionary: atoms as rows, (d_sae, d_in).
        metric: S.
        k: number of other atoms; all are taken if there are fewer.
        block: number of atoms whose cosines with all others are held at a time.

    Returns:
        Their signed cosines, largest magnitude first, and their numbers, (d_sae, k) each. Exact up to rounding. Cost:
        2·d_in·d_sae² FLOPs, and 8·block·d_sae bytes.
    """
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
    """Numbers the tokens that occur, in the order in which they come, and keeps the text that a reader sees of each."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts, self._number = tokenizer, [], {}

    def number(self, token: int) -> int:
        if token not in self._number:
            self._number[token] = len(self.texts)
            self.texts.append(self.tokenizer.decode([token]).replace("\n", "↵"))
        return self._number[token]


def _contexts(firings: Firings, rows: Rows, vocabulary: _Vocabulary) -> list[list[list[float | int]]]:
    values, samples = firings.top_values.T, firings.top_samples.T
    fires = values > 0
    texts = rows.contexts(firings.rows[samples[fires]], before=BEFORE, after=AFTER)
    entries = [
        [short(value), place, *map(vocabulary.number, ids.tolist())]
        for value, (ids, place) in zip(values[fires].tolist(), texts, strict=True)
    ]
    remaining = iter(entries)
    return [[next(remaining) for _ in range(count)] for count in fires.sum(1).tolist()]


def _tokens(ids: Tensor, vocabulary: _Vocabulary) -> list[list[int]]:
    return [[vocabulary.number(token) for token in line] for line in ids.tolist()]


def _columns(
    thresholds: Tensor, cosines: Tensor, firings: Firings, entropies: Entropies, effects: LogitEffects | None
) -> list[AtomColumn]:
    rate = firings.counts.double() / len(firings.rows)
    columns = [
        ("atom", "atom", "Number of the atom: its row of W_dec.", torch.arange(len(thresholds))),
        ("rate", "rate", "Share of held-out vectors on which the atom fires.", rate),
        ("firings", "firings", "Number of held-out vectors on which the atom fires.", firings.counts),
        ("mean", "mean", "Mean value of the atom over the vectors on which it fires.", firings.mean),
        ("max", "max", "Largest value of the atom.", firings.top_values[0]),
        ("threshold", "θ", "Threshold of the atom.", thresholds),
        ("coherence", "μ_i", "|cos_S| of the atom with its nearest atom.", cosines[:, 0].abs()),
        ("h_token", "H token", "Entropy (bits) of the token given that the atom fires.", entropies.token_entropy),
        (
            "h_token_null",
            "null",
            "Entropy (bits) of the token if the firings of the atom fell on vectors drawn at random.",
            entropies.token_entropy_null,
        ),
        ("h_doc", "H doc.", "Entropy (bits) of the document given that the atom fires.", entropies.document_entropy),
    ]
    if effects is not None:
        what = "Largest direct effect of the atom, at unit root mean square, on a logit."
        columns.append(("logit", "logit", what, effects.raised[:, 0]))
    return [
        AtomColumn(key, header, definition, [short(value) for value in values.tolist()])
        for key, header, definition, values in columns
    ]


def short(value: float) -> float:
    """Rounds a number to the four digits that the page shows."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
