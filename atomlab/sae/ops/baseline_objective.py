"""The training objective of the architectures that a TSAE is compared with."""

from typing import assert_never

from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.sae.baselines import BaselineSAE, BatchTopK, Gated, Relu, TopK
from atomlab.sae.baselines.activations import kept_of_largest
from atomlab.sae.losses import reconstruction_loss
from atomlab.sae.ops.operators import Terms


def baseline_objective(
    sae: BaselineSAE,
    x: Float[Tensor, "batch d_in"],
    l1: float | Float[Tensor, ""],
    dead: Bool[Tensor, " d_sae"],
    dead_coefficient: float,
    target: Float[Tensor, "batch d_in"] | None = None,
) -> Terms:
    """Computes the training objective of a baseline on a batch, mean ‖t − x̂‖² and what its paper adds.

    - ReLU: λ · mean Σ_j f_j.
    - Gated, with the gate's values g = max(0, z): λ · mean Σ_j g_j + mean ‖t − g W_dec − b_dec‖², in which W_dec and b_dec
      get no gradient.
    - TopK and BatchTopK: a coefficient times `dead_latents_loss`.

    Means are over the batch, and atoms have unit norm, so that the ℓ1 norm is that of the contributions f_j d_j.

    Args:
        sae: the baseline.
        x: activations, shape `(batch, d_in)`.
        l1: λ of ReLU and Gated.
        dead: which latents count as dead, shape `(d_sae,)`.
        dead_coefficient: of the term for dead latents of TopK and BatchTopK; 0 leaves it out.
        target: t, what is reconstructed, shape `(batch, d_in)`, if it is not x.

    Returns:
        The terms; `.loss` has gradients to the parameters of `sae`.

    Cost: 10·batch·d_in·d_sae FLOPs, 4 more for a gated SAE; memory of several `(batch, d_sae)` matrices.
    """
    target = x if target is None else target
    code = sae.batch_code(x)
    x_hat = sae.decode(code.values)
    reconstruction = reconstruction_loss(target, x_hat)
    match sae.activation:
        case Relu():
            added = l1 * code.values.sum(1).mean()
        case Gated():
            gate = code.z.relu()
            alone = gate @ sae.W_dec.detach() + sae.b_dec.detach()
            added = l1 * gate.sum(1).mean() + reconstruction_loss(target, alone)
        case TopK() | BatchTopK():
            added = reconstruction.new_zeros(())
            if dead_coefficient > 0 and dead.any():
                residual = (target - x_hat).detach()
                added = dead_coefficient * dead_latents_loss(sae, code.z[:, dead], residual, dead)
        case _:
            assert_never(sae.activation)
    return Terms(reconstruction, added, code)


def dead_latents_loss(
    sae: BaselineSAE,
    z: Float[Tensor, "batch dead"],
    residual: Float[Tensor, "batch d_in"],
    dead: Bool[Tensor, " d_sae"],
) -> Float[Tensor, ""]:
    """Computes mean ‖e − ê‖², where the dead latents with the largest z reconstruct the residual e (Gao et al. 2024, A.2).

    ê is made of the d_in/2 largest values max(0, z) of each vector among the dead latents. Where there are fewer dead
    latents than that, the loss is multiplied by their number over d_in/2.

    Args:
        sae: the SAE.
        z: pre-activations of the dead latents, shape `(batch, dead)`.
        residual: e = t − x̂, shape `(batch, d_in)`; it gets no gradient.
        dead: which latents these are, shape `(d_sae,)`.

    Returns:
        The loss, a scalar.
    """
    most = max(1, sae.d_in // 2)
    share = min(1.0, z.shape[1] / most)
    found = kept_of_largest(z, most) @ sae.W_dec[dead]
    return share * (residual - found).square().sum(1).mean()
