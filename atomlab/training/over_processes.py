"""What a training step says of all processes together: the means over the whole batch, and the norm of all gradients."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from atomlab.sae import SAE
from atomlab.sae.ops import Terms


@final
@dataclass(frozen=True)
class BatchMeans:
    """Numbers of one batch over all processes, each a scalar, the same in all of them.

    Attributes:
        loss: the loss.
        reconstruction: mean ‖x − x̂‖².
        sparsity: the sparsity term and that of dead latents.
        variance: mean ‖x − x̄‖², x̄ the mean of the batch.
        l0: mean number of active latents of a vector.
        dead: share of the latents that are dead.
    """

    loss: Tensor
    reconstruction: Tensor
    sparsity: Tensor
    variance: Tensor
    l0: Tensor
    dead: Tensor


@torch.no_grad()
def batch_means(
    sae: SAE,
    x: Float[Tensor, "batch d_in"],
    terms: Terms,
    loss: Float[Tensor, ""],
    firings: Int64[Tensor, " d_sae"],
    dead: Bool[Tensor, " d_sae"],
) -> BatchMeans:
    """Computes the means of a batch that is spread over processes, all of which call this together.

    Args:
        sae: the SAE, which knows the processes.
        x: this process's vectors; the others have as many.
        terms: of the loss on these.
        loss: of this process, with the terms that are no part of `terms`.
        firings: how many vectors of the whole batch each of this process's latents fired on.
        dead: which of this process's latents are dead.

    Returns:
        The means, in the dtype of the loss.

    Communication: two numbers over the latents' processes, and d_in + 4 over those of the data; none on one process.
    """
    groups = sae.shard.groups
    counts = groups.latents.sum(torch.stack([firings.sum(), dead.sum()]))
    l0, dead_share = counts[0] / (len(x) * groups.data.size), counts[1] / sae.shard.d_sae
    if groups.data.size == 1:
        variance = (x - x.mean(0)).square().sum(1).mean()
        return BatchMeans(loss, terms.reconstruction, terms.sparsity, variance, l0, dead_share)
    x = x.double()
    own = torch.stack([loss.double(), terms.reconstruction.double(), terms.sparsity.double(), x.square().sum(1).mean()])
    means = groups.data.sum(torch.cat([own, x.mean(0)])) / groups.data.size
    variance = means[3] - means[4:].square().sum()
    found = [value.to(loss.dtype) for value in (means[0], means[1], means[2], variance)]
    return BatchMeans(*found, l0=l0, dead=dead_share)


@torch.no_grad()
def clip_by_norm_(sae: SAE, largest: float) -> None:
    """Scales the gradients of a TSAE that several processes share, so that their norm over all latents is at most `largest`.

    Args:
        sae: the TSAE; its gradients change in place.
        largest: the norm that is allowed.

    Communication: one number.
    """
    parameters = dict(sae.named_parameters())
    common = {"b_dec"}  # every process has it, and the same gradient of it
    squares = {name: p.grad.double().square().sum() for name, p in parameters.items() if p.grad is not None}
    own = [value for name, value in squares.items() if name not in common]
    total = sae.shard.groups.latents.sum(torch.stack(own).sum()) + sum(
        squares[name] for name in common if name in squares
    )
    torch.nn.utils.clip_grads_with_norm_(parameters.values(), largest, total.sqrt())
