"""What every reader of a file ends in: parameters and transforms of which every tensor is looked at before it is used."""

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
    """The TSAE of these parameters, in float32 and with θ at 0 or above: what every reader of a file ends in.

    θ < 0 acts as 0 exactly: relu(z)·[z > θ] is 0 for z in (θ, 0], and z above.

    Args:
        weights: by the names of `ThresholdSAE`'s parameters, and no others.
        source: the file that they are from.
        apply_b_dec_to_input, tied: as in `ThresholdSAE`.

    Raises:
        ValueError: a parameter that is missing, unknown, of another shape, no floating number or not finite in float32.
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
            f"{source} has {', '.join(unknown)}, which a threshold SAE does not have: its function is another one, and "
            f"only {', '.join(expected)} can be read."
        )
    converted = {name: checked(weights[name], expected[name].shape, f"{source}: {name}") for name in expected}
    sae.load_state_dict(converted)
    sae.clamp_thresholds_()
    return sae


def checked(value: object, shape: torch.Size, name: str) -> Tensor:
    """In float32. Raises ValueError unless it is a tensor of floating numbers of this shape, finite in float32."""
    if not (isinstance(value, Tensor) and value.shape == shape and value.dtype in _DTYPES):
        found = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} should be floating numbers of shape {tuple(shape)}, found {found}.")
    converted = value.float()
    if not torch.isfinite(converted).all():
        raise ValueError(f"{name} should be finite in float32, found {converted[~converted.isfinite()][0]}.")
    return converted


def read_transform(tensors: Mapping[str, object], d_in: int, source: Path) -> InputTransform:
    """The transform of a file's `mean`, `matrix` and `inverse`, of which nothing is trusted.

    M and M⁻¹ are rounded to float32, each entry by a factor within 1 ± u, u = 2⁻²⁴, so |M M⁻¹ − I| ≤ (2u + u²)
    |M| |M⁻¹|, entry by entry. Allowed is twice the largest entry of that bound, since the inverse was computed in
    float64 before it was rounded.

    Args:
        tensors: by name.
        d_in: width of the activations.
        source: the file that they are from.

    Cost: two products of d_in x d_in matrices in float64.

    Raises:
        ValueError: a tensor that is missing, of another shape, not finite, or an inverse that is none.
    """
    square = torch.Size((d_in, d_in))
    shapes = {"mean": torch.Size((d_in,)), "matrix": square, "inverse": square}
    mean, matrix, inverse = (checked(tensors.get(n), shape, f"{source}: transform.{n}") for n, shape in shapes.items())
    wide, back = matrix.double(), inverse.double()
    error = (wide @ back - torch.eye(d_in, dtype=torch.float64)).abs().max()
    allowed = 4 * 2.0**-24 * (wide.abs() @ back.abs()).max()
    if not error <= allowed:
        raise ValueError(
            f"{source}: transform.inverse is not the inverse of transform.matrix; their product is {error:.3g} off the "
            f"identity, and rounding explains {allowed:.3g}."
        )
    return InputTransform(mean, matrix, inverse)
