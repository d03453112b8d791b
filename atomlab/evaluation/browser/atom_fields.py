"""Gathers everything that the atom browser shows of each atom: numbers, histogram, nearest atoms, logits and contexts."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.contexts import choose_contexts, context_fields, firings_by_atom, histograms
from atomlab.evaluation.browser.entropies import Entropies
from atomlab.evaluation.browser.firings import AFTER, BEFORE, Firings
from atomlab.evaluation.browser.logit_effects import LogitEffects
from atomlab.evaluation.browser.neighbours import nearest_atoms, neighbour_maps
from atomlab.evaluation.browser.shown_text import Vocabulary, shown_text
from atomlab.evaluation.browser.telling import telling
from atomlab.report import AtomBrowser, AtomColumn
from atomlab.sae import SAE
from atomlab.theory import AtomicInnerProduct

_NEAREST = 8  # atoms shown beside each atom
_BINS = 20  # of an atom's histogram


@final
@dataclass(frozen=True)
class Measured:
    """What was measured of the atoms before.

    Attributes:
        firings: on the searched rows.
        entropies: of these firings.
        effects: on the logits; None where an atom has no direct path to them, or it is not known.
    """

    firings: Firings
    entropies: Entropies
    effects: LogitEffects | None


def atom_browser(
    sae: SAE,
    metric: AtomicInnerProduct,
    measured: Measured,
    rows: Rows,
    tokenizer: Any,
    contexts: int,
    seed: int,
) -> AtomBrowser:
    """Gathers the data of the atom browser.

    Args:
        sae: whose atoms and thresholds are shown.
        metric: S, in which coherence, nearest atoms and their maps are computed.
        measured: of its atoms on `rows`.
        rows: of the held-out split.
        tokenizer: of the language model.
        contexts: number of strongest contexts of an atom, at most; those of other kinds are added.
        seed: of what is drawn at random.

    Returns:
        The data. Cost: 2·d_in·d_sae² FLOPs for the nearest atoms, and one look at every firing.
    """
    atoms, firings = sae.W_dec.detach(), measured.firings
    cosines, neighbours = nearest_atoms(atoms, metric, _NEAREST)
    places, shares = neighbour_maps(atoms, metric, neighbours)
    vocabulary = Vocabulary(tokenizer)
    text = shown_text(rows, firings.rows, vocabulary)
    shown = [
        context_fields(fires, choose_contexts(fires, text, contexts, seed + atom))
        for atom, fires in enumerate(firings_by_atom(firings, text))
    ]
    token = rows.origin(firings.rows).token_id
    tells = telling(firings, token, seed)
    unknown: list[None] = [None] * sae.d_sae
    effects = measured.effects
    return AtomBrowser(
        samples=len(firings.rows),
        columns=_columns(sae.threshold.detach(), (cosines, shares, tells), measured),
        histograms=histograms(firings, _BINS),
        nearest=_pairs(neighbours, cosines),
        maps=[[round(number, 2) for number in line] for line in places.flatten(1).tolist()],
        raised=unknown if effects is None else _logits(effects.raised_ids, effects.raised, vocabulary),
        lowered=unknown if effects is None else _logits(effects.lowered_ids, effects.lowered, vocabulary),
        contexts=shown,
        tokens=text.tokens,
        starts=text.starts,
        window=(BEFORE, AFTER),
        vocabulary=vocabulary.texts,
    )


def _pairs(numbers: Tensor, values: Tensor) -> list[list[tuple[int, float]]]:
    return [
        [(number, float(f"{value:.3g}")) for number, value in zip(line, own, strict=True)]
        for line, own in zip(numbers.tolist(), values.tolist(), strict=True)
    ]


def _logits(ids: Tensor, effects: Tensor, vocabulary: Vocabulary) -> list[list[tuple[int, float]]]:
    return [[(vocabulary.of_token(token), value) for token, value in line] for line in _pairs(ids, effects)]


def _columns(thresholds: Tensor, of_atoms: tuple[Tensor, Tensor, Tensor], measured: Measured) -> list[AtomColumn]:
    firings, entropies = measured.firings, measured.entropies
    cosines, shares, tells = of_atoms
    rate = firings.counts.double() / len(firings.rows)
    columns = [
        ("atom", "atom", "Number of the atom: its row of W_dec.", torch.arange(len(thresholds))),
        (
            "telling",
            "telling",
            "How many bits the atom tells of the token that it fires on: by how much the entropy of its tokens is below that of "
            "as many firings at random, less by how much its tokens are more frequent. An index; a dash for fewer than ten "
            "firings.",
            tells,
        ),
        ("rate", "rate", "Share of held-out vectors on which the atom fires.", rate),
        ("firings", "firings", "Number of held-out vectors on which the atom fires.", firings.counts),
        ("mean", "mean", "Mean value of the atom over the vectors on which it fires.", firings.mean),
        ("max", "max", "Largest value of the atom.", firings.top_values[0]),
        ("threshold", "θ", "Threshold of the atom.", thresholds),
        ("coherence", "μ_i", "|cos_S| of the atom with its nearest atom.", cosines[:, 0].abs()),
        (
            "plane",
            "in plane",
            "Share of the variance of the atom and its nearest atoms that the map of them shows.",
            shares,
        ),
        ("h_token", "H token", "Entropy (bits) of the token given that the atom fires.", entropies.token_entropy),
        (
            "h_token_null",
            "null",
            "Entropy (bits) of the token if the firings of the atom fell on vectors drawn at random.",
            entropies.token_entropy_null,
        ),
        ("h_doc", "H doc.", "Entropy (bits) of the document given that the atom fires.", entropies.document_entropy),
    ]
    if measured.effects is not None:
        what = "Largest direct effect of the atom, at unit root mean square, on a logit."
        columns.append(("logit", "logit", what, measured.effects.raised[:, 0]))
    return [
        AtomColumn(key, header, definition, [short(value) for value in values.tolist()])
        for key, header, definition, values in columns
    ]


def short(value: float) -> float:
    """Rounds a number to the four digits that the page shows."""
    return value if isinstance(value, int) else float(f"{value:.4g}")
