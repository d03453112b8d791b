"""Thresholds from data, so that training starts at its target sparsity."""

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
    """Sets each θ to the value above which its latent fires on a share target_l0/d_sae of the samples, and returns
    the mean L0 reached.

    Quantiles per latent (clamped at 0), in blocks of latents: (samples, block) memory.

    Raises:
        ValueError: a target that is not between 0 and d_sae.
    """
    if not 0 < target_l0 < sae.d_sae:
        raise ValueError(f"A target L0 of {target_l0} is not between 0 and d_sae={sae.d_sae}.")
    rank = max(1, round(len(x) * (1 - target_l0 / sae.d_sae)))
    centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
    fired = 0
    for latents in torch.arange(sae.d_sae).split(block):
        z = centred @ sae.W_enc[:, latents] + sae.b_enc[latents]
        threshold = z.kthvalue(rank, dim=0).values.clamp(min=0)
        sae.threshold[latents] = threshold
        fired += int((z > threshold).sum())
    return fired / len(x)
