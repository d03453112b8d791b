"""Builds SAEs and input transforms from the tensors of a file, and checks every tensor first."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from atomlab.interop.layout import Stored, check_header, plainly, shapes_of
from atomlab.interop.tensor_file import TensorFile
from atomlab.sae import BaselineSAE, InputTransform, Origin, ThresholdSAE, TopK

PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_weights(
    file: TensorFile,
    layout: Mapping[str, Stored],
    *,
    kind: str = "a threshold SAE",
    sizes: tuple[object, object] = (None, None),
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """Reads the parameters of an SAE in float32, after all shapes in the file's header were checked.

    Args:
        file: the file.
        layout: where the file has each parameter. The names are those of `shapes_of`; W_dec is among them.
        kind: names what only has these parameters, for error messages.
        sizes: (d_in, d_sae) as the configuration beside the file states them; None for what it does not state.
        ignored: further keys that the file may have, which do not change what the SAE computes.

    Returns:
        Each parameter in the orientation of this package, finite and in memory of its own.

    Raises:
        ValueError: a parameter is missing, unknown, empty, of the wrong shape or orientation, not of a floating dtype, or
            not finite in float32; or the sizes are not those of the configuration.

    Memory: the float32 parameters and one tensor as it is stored.
    """
    d_sae, d_in = check_header(file, layout, kind, ignored)
    for name, stated, found in zip(("d_in", "d_sae"), sizes, (d_in, d_sae), strict=True):
        if stated is not None and (type(stated) is not int or stated != found):
            raise ValueError(
                f"{file.path}: the configuration beside it has {name}={stated!r:.40}, and "
                f"{layout['W_dec'].key} is of shape {file.shapes[layout['W_dec'].key]}, which is d_in={d_in}, d_sae={d_sae}: "
                "the two files are of different SAEs."
            )
    shapes = shapes_of(d_in, d_sae)
    weights = {}
    for name, stored in layout.items():
        shape = shapes[name][:: -1 if stored.transposed else 1]
        value = finite_float32(file.read(stored.key), torch.Size(shape), f"{file.path}: {stored.key}")
        weights[name] = value.T if stored.transposed else value
    return weights


def threshold_sae(
    weights: Mapping[str, Tensor],
    origin: Origin | None = None,
    *,
    apply_b_dec_to_input: bool = False,
    tied: bool = False,
) -> ThresholdSAE:
    """Builds the TSAE that has these parameters, without a copy of them and without random numbers.

    A threshold θ < 0 becomes 0, which changes no code: relu(z)·[z > θ] is 0 for z in (θ, 0] and z for z > 0.

    Args:
        weights: W_enc unless `tied`, b_enc, W_dec, b_dec and threshold, in float32 and of matching shapes.
        origin: where they come from.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.
        tied: whether the encoder is W_decᵀ.

    Returns:
        A TSAE on the CPU.
    """
    d_sae, d_in = weights["W_dec"].shape
    with torch.device("meta"):
        sae = ThresholdSAE(d_in, d_sae, apply_b_dec_to_input=apply_b_dec_to_input, tied=tied)
    own = {name: value.contiguous() for name, value in weights.items() if name != "W_enc"}
    if not tied:  # the weights of one latent are adjacent in memory, as in every TSAE
        own["W_enc"] = weights["W_enc"].T.contiguous().T
    sae.load_state_dict(own, assign=True)
    sae.clamp_thresholds_()
    sae.origin = origin
    return sae


def top_k_sae(
    weights: Mapping[str, Tensor], k: int, origin: Origin, *, stated: str, apply_b_dec_to_input: bool = False
) -> BaselineSAE:
    """Builds the TopK SAE that has these parameters: f keeps the k largest values of relu(z).

    Args:
        weights: W_enc, b_enc, W_dec and b_dec, in float32 and of matching shapes.
        k: number of latents that are kept.
        origin: where they come from.
        stated: which file and key state k. Error messages name it.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.

    Returns:
        An SAE on the CPU.

    Raises:
        ValueError: k is above the number of latents.
    """
    d_sae, d_in = weights["W_dec"].shape
    if not 1 <= k <= d_sae:
        raise ValueError(f"{stated} is {k}: expected a number from 1 to {d_sae}, since W_dec has {d_sae} latents.")
    with torch.device("meta"):
        sae = BaselineSAE(d_in, d_sae, TopK(1), apply_b_dec_to_input=apply_b_dec_to_input)
    sae.activation = TopK(k)
    own = {name: weights[name].contiguous() for name in ("W_dec", "b_enc", "b_dec")}
    sae.load_state_dict(own | {"W_enc": weights["W_enc"].T.contiguous().T}, strict=False, assign=True)
    sae.origin = origin
    return sae


def gated_as_threshold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Writes a gated SAE with tied encoders as a threshold SAE, which computes the same function.

    A gated SAE has f = [π + b_gate > 0]·relu(e^r π + b_mag) with π = x W_enc. With z = e^r π + b_mag the gate is open where
    z > b_mag − e^r b_gate, so f = relu(z)·[z > θ] with that θ, encoder W_enc e^r and bias b_mag. The two agree but for
    pre-activations within rounding of the threshold.

    Args:
        weights: W_enc, r_mag (r), b_gate, b_mag, W_dec, b_dec.

    Returns:
        W_enc, b_enc, threshold, W_dec, b_dec.
    """
    scale = weights["r_mag"].exp()
    return {
        "W_enc": weights["W_enc"] * scale,
        "b_enc": weights["b_mag"],
        "threshold": weights["b_mag"] - scale * weights["b_gate"],
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_dec"],
    }


def of_unit_atoms(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Folds the norms of the atoms into the encoder, for an SAE that compares z·‖d‖ with its threshold or among latents.

    Its codes become z·‖d‖, which is what is compared, its atoms get unit norm, and it reconstructs the same. The threshold,
    which is in units of z·‖d‖, stays. An atom that is zero stays zero.

    Args:
        weights: W_enc, b_enc, W_dec and further parameters.

    Returns:
        W_enc‖d‖, b_enc‖d‖ and W_dec/‖d‖; everything else is as it was.
    """
    norms = weights["W_dec"].norm(dim=1)
    safe = norms.where(norms > 0, torch.ones_like(norms))
    return dict(weights) | {
        "W_enc": weights["W_enc"] * norms, "b_enc": weights["b_enc"] * norms, "W_dec": weights["W_dec"] / safe[:, None],
    }  # fmt: skip


def of_scaled_inputs(
    weights: Mapping[str, Tensor], scale_in: float, scale_out: float | None = None
) -> dict[str, Tensor]:
    """Folds the scale of the inputs into the weights: the SAE of s·x becomes that of x, with the same codes.

    Args:
        weights: of the SAE that reads s·x and reconstructs s·x.
        scale_in: s.
        scale_out: the scale of what it reconstructs, if that is another.

    Returns:
        W_enc·s, W_dec/s and b_dec/s; everything else is as it was.
    """
    out = scale_in if scale_out is None else scale_out
    return dict(weights) | {
        "W_enc": weights["W_enc"] * scale_in, "W_dec": weights["W_dec"] / out, "b_dec": weights["b_dec"] / out,
    }  # fmt: skip


def sae_of_weights(
    weights: Mapping[str, Tensor], source: Path, *, apply_b_dec_to_input: bool = False, tied: bool = False
) -> ThresholdSAE:
    """Builds the TSAE that has these parameters, in float32, after checking them like those of a file (`read_weights`).

    Args:
        weights: the parameters by their names in `ThresholdSAE`: W_enc (d_in, d_sae) unless `tied`, b_enc (d_sae,),
            W_dec (d_sae, d_in), b_dec (d_in,), threshold (d_sae,). Any floating dtype. Other names are refused.
        source: the file that the parameters come from. Error messages name it.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.
        tied: whether the encoder is W_decᵀ; then `weights` has no W_enc.

    Returns:
        A TSAE on the CPU, as `threshold_sae` builds it.

    Raises:
        ValueError: as `read_weights`.
    """
    names = [name for name in PARAMETERS if not (tied and name == "W_enc")]
    file = TensorFile(source, {name: tuple(value.shape) for name, value in weights.items()}, weights.__getitem__, {})
    found = read_weights(file, plainly(*names))
    return threshold_sae(found, apply_b_dec_to_input=apply_b_dec_to_input, tied=tied)


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
        finite_float32(tensors.get(name), shape, f"{source}: transform.{name}") for name, shape in shapes.items()
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


def finite_float32(value: object, shape: torch.Size, name: str) -> Tensor:
    """Converts a tensor to float32; raises ValueError unless it is floating, of this shape, and then finite."""
    if not (isinstance(value, Tensor) and value.shape == shape and value.dtype in _DTYPES):
        found = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} should be floating numbers of shape {tuple(shape)}, found {found}.")
    converted = value.to(torch.float32, copy=True)  # in memory of its own, also where the file is memory-mapped
    if not torch.isfinite(converted).all():
        raise ValueError(f"{name} should be finite in float32, found {converted[~converted.isfinite()][0]}.")
    return converted
