"""Measures how alike the strongest contexts of an atom are, by the cosines of their sentence embeddings.

This is a proxy of monosemanticity, not monosemanticity itself. Its null are contexts drawn at random, in groups as large as
those of the atoms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.firings import AFTER, BEFORE, Firings
from atomlab.report import Row

_ATOMS = 500  # embedding the contexts of more of them takes long and changes the median little


def measure_agreement(firings: Firings, rows: Rows, tokenizer: Any, embedder: LanguageModel, seed: int) -> Row:
    """Measures the median agreement over a random sample of atoms, and over as many groups of random contexts.

    Args:
        firings: of the atoms.
        rows: the split that they were found in.
        tokenizer: of the language model, which turns contexts into text.
        embedder: a sentence-embedding model, see `sentence_embedder`.
        seed: of the sampled atoms and of the random contexts.

    Returns:
        `context_agreement`, `context_agreement_null` and `samples_agreement_atoms`, the number of atoms in the medians.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = sample_groups(context_texts(firings, rows, tokenizer), _ATOMS, generator)
    drawn = torch.randint(len(rows), (sum(map(len, groups)),), generator=generator)
    random = iter(_texts(rows, drawn, tokenizer))
    null = [[next(random) for _ in group] for group in groups]
    embed = sentence_embedder(embedder)
    medians = [float(torch.tensor(context_agreement(part, embed)).nanmedian()) for part in (groups, null)]
    return {
        "context_agreement": medians[0],
        "context_agreement_null": medians[1],
        "samples_agreement_atoms": len(groups),
    }


def sample_groups(groups: list[list[str]], count: int, generator: torch.Generator) -> list[list[str]]:
    """Draws groups at random, since released SAEs may number their atoms by how often they fire.

    Args:
        groups: all groups.
        count: number of groups to draw; all are taken if there are fewer.
        generator: of the draw.

    Returns:
        The drawn groups in their old order.
    """
    return [groups[i] for i in torch.randperm(len(groups), generator=generator)[:count].sort().values.tolist()]


def context_texts(firings: Firings, rows: Rows, tokenizer: Any, fewest: int = 2) -> list[list[str]]:
    """Collects the texts of each atom's strongest contexts that do not overlap.

    Args:
        firings: of the atoms.
        rows: the split that they were found in.
        tokenizer: of the language model.
        fewest: atoms with fewer contexts than this are left out.

    Returns:
        A list of texts for each remaining atom, the strongest context first, in the order of the atoms.
    """
    groups = []
    for values, samples in zip(firings.top_values.T, firings.top_samples.T, strict=True):
        fires = firings.rows[samples[values > 0]]
        chosen = fires[apart(fires, rows.origin(fires).document, BEFORE + AFTER)]
        if len(chosen) >= fewest:
            groups.append(_texts(rows, chosen, tokenizer))
    return groups


def apart(rows: Tensor, documents: Tensor, distance: int) -> list[int]:
    """Chooses rows whose contexts do not overlap: neighbouring rows of a document are neighbouring tokens.

    Args:
        rows: numbers of the rows, (n,).
        documents: document of each row, (n,).
        distance: rows of one document must be further apart than this.

    Returns:
        Places in `rows`: each row that is far enough from every row chosen before it, the first of them included.

    >>> apart(torch.tensor([50, 52, 10, 40, 73, 51]), torch.tensor([0, 0, 0, 0, 0, 1]), 22)
    [0, 2, 4, 5]
    """
    kept: list[int] = []
    for i in range(len(rows)):
        near = (rows[kept] - rows[i]).abs() <= distance
        if not (near & (documents[kept] == documents[i])).any():
            kept.append(i)
    return kept


def context_agreement(groups: Sequence[Sequence[str]], embed: Callable[[list[str]], Tensor]) -> list[float]:
    """Computes the mean cosine over all pairs of texts of each group.

    Args:
        groups: texts.
        embed: maps n texts to their embeddings at unit length, (n, width).

    Returns:
        One mean a group; NaN for a group of fewer than two texts.
    """
    texts = [text for group in groups for text in group]
    vectors = embed(texts) if texts else torch.zeros(0, 1)
    result = []
    for part in vectors.split([len(group) for group in groups]):
        k = len(part)
        result.append(float((part.sum(0).square().sum() - k) / (k * (k - 1))) if k > 1 else float("nan"))
    return result


@torch.inference_mode()
def sentence_embedder(model: LanguageModel, batch: int = 64) -> Callable[[list[str]], Tensor]:
    """Loads a sentence-embedding model that averages the last hidden states over the tokens, such as all-MiniLM-L6-v2.

    Args:
        model: an encoder.
        batch: number of texts that are embedded at a time.

    Returns:
        A function from n texts to their embeddings at unit length, (n, width) float32 on the CPU.
    """
    encoder = model.load()

    def embed(texts: list[str]) -> Tensor:
        parts = []
        for start in range(0, len(texts), batch):
            inputs = model.tokenizer(texts[start : start + batch], padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                states = encoder(**inputs.to(model.device)).last_hidden_state
            mask = inputs["attention_mask"][:, :, None].to(states)
            parts.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).float().cpu())
        return torch.cat(parts)

    return embed


def _texts(rows: Rows, numbers: Tensor, tokenizer: Any) -> list[str]:
    """Returns the text around each row."""
    return tokenizer.batch_decode([ids.tolist() for ids, _ in rows.contexts(numbers, before=BEFORE, after=AFTER)])
