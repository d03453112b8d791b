"""Loss terms of a TSAE (theory.md 7).

Sparsity is counted on the pre-activations z rather than the code f, so that a latent just below its threshold θ, whose
code is 0, still passes a gradient to θ.
"""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.ranges import Count, NotNegative, Positive, Share, check_ranges
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.baselines.baseline_sae import SAE
from atomlab.sae.decoder import decoder_norms
from atomlab.sae.shard import Shard
from atomlab.sae.sparse_code import Code
from atomlab.sae.thresholding import step


def reconstruction_loss(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """Computes the mean over the batch of ‖x − x̂‖².

    Args:
        x: activations, shape `(batch, d_in)`.
        x_hat: x̂, their reconstructions, shape `(batch, d_in)`.

    Returns:
        The mean, a scalar.
    """
    return (x - x_hat).square().sum(1).mean()


def mean_l0(code: Code, threshold: Float[Tensor, " d_sae"], bandwidth: float) -> Float[Tensor, ""]:
    """Computes the mean over the batch of L0 = Σ_j H(z_j − θ_j), with a straight-through gradient to θ.

    Args:
        code: the code of the batch.
        threshold: θ, shape `(d_sae,)`.
        bandwidth: ε of the straight-through estimator.

    Returns:
        L0, a scalar. The value is exact; the gradient is an estimate.
    """
    return step(code.z, code.at(threshold), bandwidth).sum() / code.batch


def target_l0_penalty(
    code: Code, threshold: Float[Tensor, " d_sae"], bandwidth: float, target: float, shard: Shard | None = None
) -> Float[Tensor, ""]:
    """Computes (L0/L0* − 1)², where L0 is the mean over the batches of all processes, of the latents of all of them.

    The gradient that reaches θ is that of this process's own samples and latents, with the factor 2 (L0/L0* − 1)/L0* of the
    global L0. Averaged over the processes that see different data, as DDP averages, it is the gradient of the global
    penalty, if all processes have equally many samples.

    Args:
        code: the code of this process's batch, on its latents.
        threshold: θ, shape `(d_sae,)`.
        bandwidth: ε of the straight-through estimator.
        target: L0*, above 0.
        shard: which latents these are, and the other processes; None means that there are no others.

    Returns:
        The penalty, the same number in every process. One all-reduce of one number where there are several.
    """
    l0 = mean_l0(code, threshold, bandwidth)
    if shard is not None:
        own, groups = l0.detach(), shard.groups
        l0 = l0 + (groups.everyone.sum(own) / groups.data.size - own)
    return (l0 / target - 1).square()


def tanh_penalty(code: Code, norms: Float[Tensor, " d_sae"], scale: float) -> Float[Tensor, ""]:
    """Computes the mean over the batch of Σ_j tanh(c·f_j·‖d_j‖) (Anthropic, Circuits Updates, January 2025).

    Args:
        code: the code of the batch.
        norms: ‖d_j‖ of each atom, shape `(d_sae,)`.
        scale: c.

    Returns:
        The mean, a scalar.
    """
    return torch.tanh(scale * code.values * code.at(norms)).sum() / code.batch


def pre_activation_penalty(
    z: Float[Tensor, "batch dead"], threshold: Float[Tensor, " dead"], norms: Float[Tensor, " dead"]
) -> Float[Tensor, ""]:
    """Computes the mean over the batch of Σ_j ReLU(θ_j − z_j)·‖d_j‖ over dead latents, which pulls z_j up to θ_j.

    Args:
        z: pre-activations of the dead latents only, shape `(batch, dead)`.
        threshold: their θ, shape `(dead,)`.
        norms: norms of their atoms, shape `(dead,)`.

    Returns:
        The mean, a scalar.
    """
    return (torch.relu(threshold - z) * norms).sum() / len(z)


@no_autocast()
def incoherence_penalty(
    W_dec: Float[Tensor, "d_sae d_in"],
    chosen: Int64[Tensor, " rows"],
    bound: float,
    nearest: int,
    shard: Shard | None = None,
) -> Float[Tensor, ""]:
    """Computes the mean over the chosen atoms i of Σ_j max(0, |cos(d_i, d_j)| − b)², j over the atoms nearest to i.

    The nearest atoms are those with the largest |cos|. The penalty is zero exactly where no chosen atom has a cosine above
    b in absolute value with any other atom, so it lowers the mutual coherence of a dictionary towards b and leaves what lies
    below b alone. If the rows are chosen at random, its gradient is an unbiased estimate of that of the mean over all atoms.

    Args:
        W_dec: atoms of unit norm as rows, shape `(d_sae, d_in)`; those of this process, if several share the dictionary.
        chosen: numbers i of the atoms among all, shape `(rows,)`, the same in all processes.
        bound: b, from 0 to 1.
        nearest: how many atoms j are looked at for each i; with d_sae − 1 of them the sum is over all others.
        shard: which atoms W_dec are; None means all.

    Returns:
        The penalty over all atoms j, a scalar in the dtype of `W_dec`, the same in all processes.

    Cost: 2·rows·d_sae·d_in FLOPs and a matrix of shape `(rows, d_sae)`; the gradient needs no second product. Several
    processes exchange the chosen atoms, their gradients, `(rows, nearest)` cosines of each, and one number.
    """
    shard = Shard(len(W_dec)) if shard is None else shard
    atoms = shard.rows(W_dec, chosen)
    with torch.no_grad():
        products = (atoms @ W_dec.T).abs_()
        mine = ((chosen >= shard.first) & (chosen < shard.first + len(W_dec))).nonzero().squeeze(1)
        products[mine, chosen[mine] - shard.first] = -1.0
        wanted = min(nearest, shard.d_sae - 1)
        largest, others = products.topk(min(wanted, len(W_dec)), dim=1, sorted=False)
        least = torch.cat(shard.groups.latents.gather(largest.T)).topk(wanted, dim=0).values[-1]
        counted = largest >= least[:, None]
    cosines = torch.einsum("rnd,rd->rn", W_dec[others], atoms)
    return shard.total((torch.relu(cosines.abs() - bound).square() * counted).sum(1).mean())


@final
@dataclass(frozen=True)
class Incoherence:
    """The term λ_μ · `incoherence_penalty` over atoms that are drawn anew, in every n-th batch n times as strong.

    The cosines are those of the coordinates of the training: with inputs whitened by S those of the metric S.

    Attributes:
        coefficient: λ_μ, 0 or above; 0 leaves the term out.
        bound: b, from 0 to 1: cosines up to b cost nothing.
        rows: number of atoms that are drawn at a time, with replacement.
        nearest: number of atoms that each of them is kept apart from: those nearest to it.
        every: n. The batches between have no such term, which saves its time.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    coefficient: NotNegative = 0.6
    bound: Share = 0.25
    rows: Count = 64
    nearest: Count = 8
    every: Count = 4

    def __post_init__(self) -> None:
        check_ranges("training.incoherence", self)

    def acts_in(self, batch: int) -> bool:
        """Whether a batch, by its number counted from 0, has the term."""
        return self.coefficient > 0 and batch % self.every == 0

    def __call__(self, sae: SAE, generator: torch.Generator) -> Tensor:
        """Computes n times the term, a scalar, for a batch that has it.

        Args:
            sae: the SAE, whose atoms have unit norm.
            generator: draws the atoms; on the device of `sae`.
        """
        chosen = torch.randint(sae.shard.d_sae, (self.rows,), generator=generator, device=sae.W_dec.device)
        penalty = incoherence_penalty(sae.W_dec, chosen, self.bound, self.nearest, sae.shard)
        return self.every * self.coefficient * penalty


@runtime_checkable
class Sparsity(Protocol):
    """A sparsity term of the loss, with its coefficient λ."""

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        """Computes λ times the term, a scalar, from the code that `sae` gives a batch."""
        ...


@final
@dataclass(frozen=True)
class L0:
    """The sparsity term λ·L0.

    The L0 that a training reaches hardly changes with λ beyond some value; use `TargetL0` to reach a given L0.

    Attributes:
        coefficient: λ, 0 or above.

    Raises:
        ValueError: the coefficient is not a finite number of at least 0.
    """

    coefficient: NotNegative

    def __post_init__(self) -> None:
        check_ranges("training.sparsity", self)

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * sae.shard.total(mean_l0(code, sae.threshold, sae.bandwidth))


@final
@dataclass(frozen=True)
class TargetL0:
    """The sparsity term λ (L0/L0* − 1)², which pulls the mean L0 to a target from both sides.

    L0 is the mean over one batch of all processes. Where gradients of several batches are accumulated, each batch has
    its own square, and the squares are averaged.

    Attributes:
        coefficient: λ, 0 or above.
        target: L0*, wanted mean number of latents that fire on a vector, above 0.

    Raises:
        ValueError: the coefficient is not a finite number of at least 0, or the target not one above 0.
    """

    coefficient: NotNegative
    target: Positive

    def __post_init__(self) -> None:
        check_ranges("training.sparsity", self)

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * target_l0_penalty(code, sae.threshold, sae.bandwidth, self.target, sae.shard)


@final
@dataclass(frozen=True)
class Tanh:
    """The sparsity term λ·Σ_j tanh(c·f_j·‖d_j‖), a smooth count of the active latents.

    Attributes:
        coefficient: λ, 0 or above.
        scale: c, 0 or above.

    Raises:
        ValueError: one of the two is not a finite number of at least 0.
    """

    coefficient: NotNegative
    scale: NotNegative = 4.0

    def __post_init__(self) -> None:
        check_ranges("training.sparsity", self)

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * sae.shard.total(tanh_penalty(code, decoder_norms(sae.W_dec), self.scale))
