"""Builds TSAEs and input transforms from the tensors of a file, and checks every tensor first."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from atomlab.sae import InputTransform
from atomlab.sae.autoencoder import ThresholdSAE

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@torch.no_grad()
def sae_of_weights(
    weights: Mapping[str, Tensor], source: Path, *, apply_b_dec_to_input: bool = False, tied: bool = False
) -> ThresholdSAE:
    """Builds the TSAE that has these parameters, in float32.

    A threshold θ < 0 becomes 0, which changes no code: relu(z)·[z > θ] is 0 for z in (θ, 0] and z for z > 0.

    Args:
        weights: the parameters by their names in `ThresholdSAE`: W_enc (d_in, d_sae) unless `tied`, b_enc (d_sae,),
            W_dec (d_sae, d_in), b_dec (d_in,), threshold (d_sae,). Any floating dtype. Other names are refused.
        source: the file that the parameters come from. Error messages name it.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.
        tied: whether the encoder is W_decᵀ; then `weights` has no W_enc.

    Returns:
        A TSAE on the CPU; d_in and d_sae are read from the shape of W_dec.

    Raises:
        ValueError: a parameter is missing, unknown, empty, of the wrong shape, not of a floating dtype, or not finite
            in float32.
    """
    if weights.get("W_dec", torch.empty(0)).ndim != 2:
        raise ValueError(f"{source} has no W_dec of shape (d_sae, d_in): expected the weights of an SAE.")
    d_sae, d_in = weights["W_dec"].shape
    if min(d_sae, d_in) < 1:
        raise ValueError(f"{source}: W_dec is of shape {(d_sae, d_in)} and holds nothing: download or save it again.")
    sae = ThresholdSAE(d_in, d_sae, apply_b_dec_to_input=apply_b_dec_to_input, tied=tied)
    expected = sae.state_dict()
    if missing := sorted(set(expected) - set(weights)):
        raise ValueError(f"{source} has no {', '.join(missing)}: expected {', '.join(expected)}.")
    if unknown := sorted(set(weights) - set(expected)):
        raise ValueError(
            f"{source} has {', '.join(unknown)}, which a threshold SAE does not have, so it computes another function: "
            f"only {', '.join(expected)} can be read."
        )
    converted = {name: _finite_float32(weights[name], expected[name].shape, f"{source}: {name}") for name in expected}
    sae.load_state_dict(converted)
    sae.clamp_thresholds_()
    return sae


def read_transform(tensors: Mapping[str, object], d_in: int, source: Path) -> InputTransform:
    """Builds the input transform x̃ = (x − mean) M from its tensors, after checking that `inverse` is M⁻¹.

    M and M⁻¹ were computed in float64 and rounded to float32, which changes each entry by a factor within 1 ± u,
    u = 2⁻²⁴. Rounding therefore explains |M M⁻¹ − I| ≤ (2u + u²) |M| |M⁻¹|, entry by entry. The check allows 4u times
    the largest entry of |M| |M⁻¹|, which is twice the largest entry of that bound, to first order in u.

    Args:
        tensors: `mean` (d_in,), `matrix` M (d_in, d_in) and `inverse` (d_in, d_in) by name. Other names are ignored.
        d_in: Width of the activations.
        source: the file that the tensors come from. Error messages name it.

    Returns:
        The transform, in float32.

    Raises:
        ValueError: a tensor is missing, of the wrong shape, not of a floating dtype or not finite in float32, or
            `inverse` is not the inverse of `matrix`.

    Cost: two products of (d_in, d_in) matrices in float64.
    """
    square = torch.Size((d_in, d_in))
    shapes = {"mean": torch.Size((d_in,)), "matrix": square, "inverse": square}
    mean, matrix, inverse = (
        _finite_float32(tensors.get(name), shape, f"{source}: transform.{name}") for name, shape in shapes.items()
    )
    wide, back = matrix.double(), inverse.double()
    error = (wide @ back - torch.eye(d_in, dtype=torch.float64)).abs().max()
    allowed = 4 * 2.0**-24 * (wide.abs() @ back.abs()).max()
    if not error <= allowed:
        raise ValueError(
            f"{source}: transform.inverse is not the inverse of transform.matrix; their product differs from the "
            f"identity by {error:.3g}, and rounding explains {allowed:.3g}: use another checkpoint."
        )
    return InputTransform(mean, matrix, inverse)


def _finite_float32(value: object, shape: torch.Size, name: str) -> Tensor:
    """Converts a tensor to float32; raises ValueError unless it is floating, of this shape, and then finite."""
    if not (isinstance(value, Tensor) and value.shape == shape and value.dtype in _DTYPES):
        found = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} should be floating numbers of shape {tuple(shape)}, found {found}.")
    converted = value.float()
    if not torch.isfinite(converted).all():
        raise ValueError(f"{name} should be finite in float32, found {converted[~converted.isfinite()][0]}.")
    return converted
