"""Sets thresholds from data, so that an SAE has its target sparsity: each for itself, or all by one number."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.groups import ALONE, Axis
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.baselines.baseline_sae import SAE


@torch.no_grad()
@no_autocast()
def calibrate_thresholds_(
    sae: ThresholdSAE, x: Float[Tensor, "samples d_in"], target_l0: float, block: int = 1024
) -> float:
    """Sets each threshold θ so that its latent fires on a share target_l0 / d_sae of the samples.

    θ lies halfway between two successive order statistics of the latent's pre-activations, but not below 0: just above the
    largest value on which the latent does not fire. So θ equals no value of the samples, and the rounding of a product does
    not decide which samples fire. A latent that is positive on fewer samples than its share fires less often, and the
    mean L0 falls below the target.

    Args:
        sae: the TSAE; its thresholds change in place.
        x: activations in the coordinates of the TSAE, shape `(samples, d_in)`.
        target_l0: wanted mean number of latents that fire on a sample, between 0 and d_sae.
        block: number of latents that are handled at a time.

    Returns:
        The mean L0 that is reached on these samples, on the latents of this process: each of several that share a dictionary
        calibrates its own, and nothing is exchanged.

    Raises:
        ValueError: the target is not between 0 and d_sae.

    Cost: 2·samples·d_in·d_sae FLOPs and one selection over the samples a latent; memory of a `(samples, block)` matrix.
    """
    _check_target(sae, target_l0)
    rank = max(1, round(len(x) * (1 - target_l0 / sae.shard.d_sae)))
    centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
    fired = 0
    for latents in torch.arange(sae.d_sae).split(block):
        z = centred @ sae.W_enc[:, latents] + sae.b_enc[latents]
        threshold = _halfway_above(z, z.kthvalue(rank, dim=0).values).clamp(min=0)
        sae.threshold[latents] = threshold
        fired += int((z > threshold).sum())
    return fired / len(x)


def _halfway_above(z: Tensor, value: Tensor) -> Tensor:
    """Moves a value of each column halfway to the next larger one of the column, shape `(columns,)`.

    Above the largest value of a column there is none, and the step is half the distance to the next smaller one; it is 0 where
    all values are equal. Two neighbouring floating-point numbers have none between them, and the lower one is kept.
    """
    above = torch.where(z > value, z, torch.inf).amin(0)
    below = torch.where(z < value, z, -torch.inf).amax(0)
    gap = torch.where(above < torch.inf, above - value, torch.where(below > -torch.inf, value - below, 0))
    halfway = value + gap / 2
    return torch.where(halfway < above, halfway, value)


@torch.no_grad()
@no_autocast()
def rescale_thresholds_(
    sae: ThresholdSAE, x: Float[Tensor, "samples d_in"], target_l0: float, block: int = 1024
) -> float:
    """Multiplies all thresholds θ by the one factor c ≥ 0 for which the mean L0 on these samples is the target.

    A latent fires where z > c·θ, so c lies between two successive order statistics of the ratios z/θ over all pairs of
    a sample and a latent with z > 0; it is their mean. A latent with θ = 0 fires wherever z > 0, whatever c is. The
    thresholds keep their proportions. Where several processes share the dictionary, all find the same factor for all latents.

    Args:
        sae: the TSAE; its thresholds change in place, and stay as they are if the target is refused.
        x: activations in the coordinates of the TSAE, shape `(samples, d_in)`; they are converted to its dtype.
        target_l0: wanted mean number of latents that fire on a sample, between 0 and d_sae; samples·target_l0 is
            rounded to a whole number of firings.
        block: number of samples that are handled at a time. It does not change the result beyond the rounding of
            products.

    Returns:
        The factor c. The number of firings is exact, except that ratios which are equal fire together or not at all,
        and that pairs within rounding of c·θ may fall on either side.

    Raises:
        ValueError: the target is not between 0 and d_sae, latents with θ = 0 alone fire more often, or all pairs with
            z > 0 together are fewer.

    Cost: one product, 2·samples·d_in·d_sae FLOPs, and one division for each pair. Memory: a few `(block, d_sae)`
    matrices, and the 2·samples·target_l0 largest ratios, which processes that share a dictionary exchange.
    """
    factor = _factor(sae, x, target_l0, block)
    sae.settle_(factor)
    return factor


@torch.no_grad()
@no_autocast()
def l0_number(sae: SAE, x: Float[Tensor, "samples d_in"], target_l0: float, block: int = 1024) -> float | None:
    """Finds the one number for which, after `sae.settle_(number)`, the mean L0 on these samples is the target.

    Of a TSAE it is the factor of `rescale_thresholds_`. Of ReLU and Gated it is a level that is subtracted from the bias
    of the encoder, which for a gated SAE is that of the gate; of BatchTopK it is the threshold.

    Args:
        sae: the SAE, which does not change.
        x: activations in the coordinates of the SAE, shape `(samples, d_in)`; they are converted to its dtype.
        target_l0: wanted mean number of latents that fire on a sample, between 0 and d_sae.
        block: number of samples that are handled at a time.

    Returns:
        The number; None for TopK, whose vectors have k latents whatever is done. The number of firings is exact as in
        `rescale_thresholds_`. Processes that share a TSAE call this together, and all find the same number.

    Raises:
        ValueError: the target is not between 0 and d_sae, or no number gives it.

    Cost: that of `rescale_thresholds_`.
    """
    if isinstance(sae, ThresholdSAE):
        return _factor(sae, x, target_l0, block)
    _check_target(sae, target_l0)
    wanted, possible = round(len(x) * target_l0), 0
    largest = _Largest(wanted + 1, least=-math.inf)
    for part in x.to(sae.W_dec.dtype).split(block):
        scores = sae.activation.scores(sae.pre_activations(part), sae.b_enc)
        if scores is None:
            return None
        possible += int((scores > -math.inf).sum())
        largest.add(scores)
    if wanted > possible:
        raise ValueError(
            f"No level gives a mean L0 of {target_l0}: on these {len(x)} samples at most "
            f"{possible / max(1, len(x)):.4g} latents can fire; choose a lower target."
        )
    return largest.level(wanted)


def _factor(sae: ThresholdSAE, x: Tensor, target_l0: float, block: int) -> float:
    """The factor of `rescale_thresholds_`."""
    _check_target(sae, target_l0)
    latents = sae.shard.groups.latents
    wanted, always, firing = round(len(x) * target_l0), 0, 0
    free = sae.threshold == 0
    largest = _Largest(wanted + 1, least=0.0, latents=latents)
    for part in x.to(sae.W_dec.dtype).split(block):
        z = sae.pre_activations(part)
        always += int((z[:, free] > 0).sum())
        firing += int((z > 0).sum())
        ratios = torch.where(free, 0, z / sae.threshold)
        largest.add(ratios.clamp(max=torch.finfo(ratios.dtype).max))
    always, firing = latents.sum(torch.tensor([always, firing], device=x.device)).tolist()
    if not always <= wanted <= firing:
        raise ValueError(
            f"No factor of the thresholds gives a mean L0 of {target_l0}: on these {len(x)} samples it reaches from "
            f"{always / max(1, len(x)):.4g} to {firing / max(1, len(x)):.4g}; choose a target between the two."
        )
    return largest.level(wanted - always)


class _Largest:
    """The `count` largest of many values above `least`, as they come in; each of the processes `latents` sees some of them."""

    def __init__(self, count: int, least: float, latents: Axis = ALONE.latents) -> None:
        self.count, self.least, self.latents, self.kept = count, least, latents, torch.empty(0)

    def add(self, values: Tensor) -> None:
        """Adds values of any shape; those that cannot be among the largest are thrown away."""
        self.kept = torch.cat([self.kept.to(values), values[values > self.least]])
        if len(self.kept) > 2 * self.count:
            self.kept = self.kept.topk(self.count).values
            self.least = float(self.kept[-1])

    def level(self, count: int) -> float:
        """Returns a finite number that exactly the `count` largest of all processes exceed, if these differ from the next one.

        The processes call this together, each with its own largest values, among which are those of all.
        """
        falling = torch.cat(self.latents.gather(self.kept)).double().sort(descending=True).values
        if count == len(falling):
            return float(falling[-1]) - (abs(float(falling[-1])) or 1.0) if len(falling) else 0.0
        if count == 0:
            return float(falling[0]) + abs(float(falling[0]))
        return float(falling[count - 1] + falling[count]) / 2


def _check_target(sae: SAE, target_l0: float) -> None:
    if not 0 < target_l0 < sae.shard.d_sae:
        raise ValueError(f"A target L0 of {target_l0} should be above 0 and below d_sae={sae.shard.d_sae}.")
