"""Measures how mixed the tokens and the documents are on which an atom fires, as an offline proxy of monosemanticity.

- Token entropy: H(token | the atom fires) in bits, over the tokens on which it fires, each firing counted once. It is 0 for
  an atom that always fires on the same token.
- Document entropy: the same over documents, subjects or templates. It is small for a topic, and for a single text.

Both are plug-in estimates. They are biased downwards for few firings, since log2(number of firings) bounds them. Therefore
each stands beside its null: the entropy of an atom that fires as often, on samples drawn at random. A low entropy is not
monosemanticity.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.evaluation.browser.firings import Firings

FEWEST_FIRINGS = 10  # atoms that fire less often do not enter the medians: their entropies are mostly bias


@torch.no_grad()
def conditional_entropy(
    atom: Int[Tensor, " firings"], label: Int[Tensor, " firings"], d_sae: int
) -> Float[Tensor, " d_sae"]:
    """Estimates the entropy of the label given that an atom fires, H = −Σ_l p(l | atom) log2 p(l | atom).

    Args:
        atom: which atom fires, (firings,).
        label: the label that it fires on, such as a token id, (firings,), 0 or above.
        d_sae: number of atoms.

    Returns:
        (d_sae,) float64, plug-in estimates in bits; NaN for an atom that never fires. Cost: one sort of the firings.

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
class Entropies:
    """Entropies of every atom in bits, (d_sae,) float64; NaN for an atom that never fires.

    Attributes:
        token_entropy: of the token given that the atom fires.
        token_entropy_null: of the token if the firings fell on samples drawn at random.
        document_entropy: of the document, subject or template given that the atom fires.
        document_entropy_null: of the document, subject or template if the firings fell on samples drawn at random.
    """

    token_entropy: Float[Tensor, " d_sae"]
    token_entropy_null: Float[Tensor, " d_sae"]
    document_entropy: Float[Tensor, " d_sae"]
    document_entropy_null: Float[Tensor, " d_sae"]

    def row(self, counts: Int[Tensor, " d_sae"]) -> dict[str, float | int]:
        """Summarises the entropies by their medians over the atoms that fire at least ten times.

        Args:
            counts: number of firings of each atom, (d_sae,).

        Returns:
            The median of each attribute by its name, in bits, and `samples_entropy_atoms`, the number of atoms in the
            medians; only this number, 0, where no atom fires that often.
        """
        often = counts >= FEWEST_FIRINGS
        medians = {name: float(values[often].median()) for name, values in vars(self).items()} if often.any() else {}
        return medians | {"samples_entropy_atoms": int(often.sum())}


def measure_entropies(
    firings: Firings, token: Int[Tensor, " samples"], document: Int[Tensor, " samples"], seed: int = 0
) -> Entropies:
    """Measures the entropies of each atom, and those of its null.

    Args:
        firings: of the atoms.
        token: token id of each sample of `firings`.
        document: number of the document, subject or template of each sample.
        seed: of the samples that the null fires on.

    Returns:
        The entropies in bits, (d_sae,) float64 each: plug-in estimates.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(token), firings.sample.shape, generator=generator)
    d_sae = len(firings.counts)
    return Entropies(
        conditional_entropy(firings.atom, token[firings.sample], d_sae),
        conditional_entropy(firings.atom, token[drawn], d_sae),
        conditional_entropy(firings.atom, document[firings.sample], d_sae),
        conditional_entropy(firings.atom, document[drawn], d_sae),
    )
