"""How telling an atom is of the token it fires on, in bits: what the browser puts its most telling atoms first by."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.evaluation.browser.entropies import FEWEST_FIRINGS, conditional_entropy
from atomlab.evaluation.browser.firings import Firings


@torch.no_grad()
def telling(firings: Firings, token: Int[Tensor, " samples"], seed: int = 0) -> Float[Tensor, " d_sae"]:
    """Estimates how many bits an atom tells of the token it fires on, with no credit for frequent tokens.

    That is (H₀ − H) − max(0, s₀ − s). H is the entropy of the token given that the atom fires, and s its mean surprise
    −log2 p(token), with the frequencies p of all samples. H₀ and s₀ are the same for an atom that fires as often on samples
    drawn at random, which takes off the bias of few firings. An atom of one word has a large H₀ − H; if the word is as
    frequent as "the", then s is far below s₀, and less is left. An atom that fires on all kinds of rare words tells nothing.

    Args:
        firings: of the atoms.
        token: token id of each sample of `firings`.
        seed: of the samples drawn at random.

    Returns:
        (d_sae,) float64, an index and no proof of one meaning; NaN for an atom that fires fewer than ten times. Cost: two
        sorts of the firings.
    """
    token = token.long()
    drawn = torch.randint(len(token), firings.sample.shape, generator=torch.Generator().manual_seed(seed))
    surprise = -(torch.bincount(token).double() / len(token)).log2()[token]
    d_sae = len(firings.counts)
    entropy, null = (conditional_entropy(firings.atom, token[sample], d_sae) for sample in (firings.sample, drawn))
    mean, mean_null = (
        torch.zeros(d_sae, dtype=torch.float64).scatter_add_(0, firings.atom.long(), surprise[sample]) / firings.counts
        for sample in (firings.sample, drawn)
    )
    found = (null - entropy) - (mean_null - mean).clamp(min=0)
    return torch.where(firings.counts >= FEWEST_FIRINGS, found, torch.nan)
