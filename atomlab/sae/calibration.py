"""Sets thresholds from data, so that training starts at its target sparsity."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae.autoencoder import ThresholdSAE


@torch.no_grad()
@no_autocast()
def calibrate_thresholds_(
    sae: ThresholdSAE, x: Float[Tensor, "samples d_in"], target_l0: float, block: int = 1024
) -> float:
    """Sets each threshold θ so that its latent fires on a share target_l0 / d_sae of the samples.

    θ is the empirical quantile of the latent's pre-activations, but at least 0. A latent that is positive on fewer
    samples than that share therefore fires less often, and the mean L0 falls below the target.

    Args:
        sae: the TSAE; its thresholds change in place.
        x: activations in the coordinates of the TSAE, shape `(samples, d_in)`.
        target_l0: wanted mean number of latents that fire on a sample, between 0 and d_sae.
        block: number of latents that are handled at a time.

    Returns:
        The mean L0 that is reached on these samples.

    Raises:
        ValueError: the target is not between 0 and d_sae.

    Cost: 2·samples·d_in·d_sae FLOPs and one selection over the samples a latent; memory of a `(samples, block)` matrix.
    """
    if not 0 < target_l0 < sae.d_sae:
        raise ValueError(f"A target L0 of {target_l0} should be above 0 and below d_sae={sae.d_sae}.")
    rank = max(1, round(len(x) * (1 - target_l0 / sae.d_sae)))
    centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
    fired = 0
    for latents in torch.arange(sae.d_sae).split(block):
        z = centred @ sae.W_enc[:, latents] + sae.b_enc[latents]
        threshold = z.kthvalue(rank, dim=0).values.clamp(min=0)
        sae.threshold[latents] = threshold
        fired += int((z > threshold).sum())
    return fired / len(x)
