"""The one-step threshold code for any dictionary."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae import ThresholdSAE, calibrate_thresholds_, rescale_thresholds_
from atomlab.theory import AtomicInnerProduct, unit_rows
from atomlab.theory.supports import check_vectors

_SPREAD = 1e-3


@torch.no_grad()
@no_autocast()
def threshold_coder(
    dictionary: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_in"],
    x: Float[Tensor, "samples d_in"],
    target_l0: float,
    metric: AtomicInnerProduct | None = None,
) -> ThresholdSAE:
    """Makes the TSAE that codes activations on a given dictionary in one step.

    Its atoms are the given ones scaled to ‖d_j‖_S = 1, in raw coordinates. Its encoder is W_enc = S W_decᵀ and b_enc =
    −bias W_enc, so that z_j = ⟨x − bias, d_j⟩_S. Thresholds start as the quantiles at which all latents fire equally
    often (`calibrate_thresholds_`). Then one factor brings them to the target (`rescale_thresholds_`), which the
    quantiles miss where samples are few or latents are seldom positive. Before that the thresholds are lowered by up to
    0.1%, each by another share, so that the factor can stop between any two firings.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm but 0.
        bias: what reconstructions add, such as the mean of the activations, shape `(d_in,)`.
        x: raw activations to calibrate on, shape `(samples, d_in)`.
        target_l0: mean number of latents that fire on a sample of x, between 0 and d_sae.
        metric: S; None means Euclidean.

    Returns:
        The TSAE, in the dtype of the dictionary, float32 at least. Its W_enc is a parameter of its own; its atoms have
        unit S-norm, so codes belong to `sae.W_dec` and not to the dictionary as given.

    Raises:
        ValueError: `unit_rows` refuses the dictionary, the activations do not fit it, or the target cannot be reached.

    Cost: two products of x with the dictionary, 4·d_sae·d_in² float64 FLOPs in a metric, and two copies of the
    dictionary. The global random generator is left alone.
    """
    check_vectors(x, dictionary)
    unit_rows(dictionary, metric)  # refuses zero atoms, unlike widths and numbers that are not finite
    atoms = dictionary.double()
    atoms = atoms / (atoms.norm(dim=1) if metric is None else metric.norm(atoms))[:, None]
    duals = atoms if metric is None else atoms @ metric.matrix.to(atoms)
    dtype = torch.promote_types(dictionary.dtype, torch.float32)
    with torch.device("meta"):  # draws no random numbers
        sae = ThresholdSAE(dictionary.shape[1], len(dictionary))
    weights = {
        "W_enc": duals.to(dtype).T,  # the weights of one latent are adjacent in memory
        "b_enc": -(duals @ bias.double()).to(dtype),
        "W_dec": atoms.to(dtype),
        "b_dec": bias.to(dtype, copy=True),
        "threshold": torch.zeros(len(atoms), dtype=dtype, device=atoms.device),
    }
    sae.load_state_dict(weights, assign=True)
    calibrate_thresholds_(sae, x.to(dtype), float(target_l0))
    # Each quantile is the pre-activation of a sample, so all latents would have a ratio z/θ = 1 and cross it together.
    sae.threshold.mul_(torch.linspace(1 - _SPREAD, 1, len(atoms), dtype=dtype, device=atoms.device))
    rescale_thresholds_(sae, x, float(target_l0))
    return sae
