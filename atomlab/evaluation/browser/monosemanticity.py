"""Offline proxies of monosemanticity, none of which is monosemanticity: each says what it counts, beside its null.

- token entropy: H(token | atom fires) in bits, over the tokens whose activations make the atom fire, each firing
  counted once. 0: always on the same token. Plug-in estimate, biased downwards for few firings: log2(firings) bounds it.
- document entropy: the same for the document, subject or template. Small: a topic, or a single text.
- context agreement: mean cosine between embeddings of an atom's top contexts, by a sentence-embedding model.

The null of each is an atom that fires as often, on tokens drawn at random from all that were looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.activations.model.language_model import LanguageModel
from atomlab.evaluation.browser.contexts import Firing

FEWEST_FIRINGS = 10  # an entropy of fewer says nothing


@torch.no_grad()
def conditional_entropy(
    atom: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """H(label | atom) in bits, plug-in; NaN for atoms without a firing. Float64. One sort of the pairs.

    >>> conditional_entropy(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 6, 7, 7]), 2).tolist()
    [1.0, 0.0]
    """
    atom, label = atom.long(), label.long()
    width = int(label.max()) + 1 if len(label) else 1
    keys, counts = (atom * width + label).unique(return_counts=True)
    owner, counts = keys // width, counts.double()
    total = torch.zeros(d_sae, dtype=torch.float64).scatter_add_(0, owner, counts)
    inside = torch.zeros_like(total).scatter_add_(0, owner, counts * counts.log2())
    return (total.log2() - inside / total).clamp(min=0)  # NaN where total is 0; rounding gives −1e-16


@final
@dataclass(frozen=True)
class Monosemanticity:
    """Of each atom (d_sae,), float64: entropies in bits and those of its null."""

    token_entropy: Tensor
    token_entropy_null: Tensor
    document_entropy: Tensor
    document_entropy_null: Tensor

    def row(self, counts: Int[Tensor, " d_sae"]) -> dict[str, float | int]:
        """Medians over the atoms that fire at least ten times, beside the null's."""
        often = counts >= FEWEST_FIRINGS
        medians = {name: float(values[often].median()) for name, values in vars(self).items()} if often.any() else {}
        return medians | {"samples_entropy_atoms": int(often.sum())}


def monosemanticity(
    found: Firing, token: Int[Tensor, " n"], document: Int[Tensor, " n"], seed: int = 0
) -> Monosemanticity:
    """Entropies over the rows of `found`; `token` and `document` are those of its rows."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(token), found.sample.shape, generator=generator)
    d_sae = len(found.counts)
    return Monosemanticity(
        conditional_entropy(found.atom, token[found.sample], d_sae),
        conditional_entropy(found.atom, token[drawn], d_sae),
        conditional_entropy(found.atom, document[found.sample], d_sae),
        conditional_entropy(found.atom, document[drawn], d_sae),
    )


def context_agreement(groups: Sequence[Sequence[str]], embed: Callable[[list[str]], Tensor]) -> list[float]:
    """Mean cosine over the pairs of each group's texts; NaN for fewer than two. `embed`: texts to unit rows."""
    texts = [text for group in groups for text in group]
    vectors = embed(texts) if texts else torch.zeros(0, 1)
    result = []
    for part in vectors.split([len(group) for group in groups]):
        k = len(part)
        result.append(float((part.sum(0).square().sum() - k) / (k * (k - 1))) if k > 1 else float("nan"))
    return result


@torch.inference_mode()
def sentence_embedder(model: LanguageModel, batch: int = 64) -> Callable[[list[str]], Tensor]:
    """Mean-pooled last hidden states of an encoder such as all-MiniLM-L6-v2, at unit length."""
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
