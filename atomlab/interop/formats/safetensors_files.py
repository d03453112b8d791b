"""Reads SAEs that are one safetensors file: those of `atomlab.save_sae(format="safetensors")`, and circuit-tracer's layers."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atomlab.interop.config_file import read_config, text
from atomlab.interop.formats.found import Found, transcoder
from atomlab.interop.layout import Stored, found_in, is_of_layout, plainly
from atomlab.interop.sae_from_tensors import PARAMETERS, read_weights, threshold_sae, top_k_sae
from atomlab.interop.tensor_file import TensorFile, open_safetensors
from atomlab.sae import SAE, Origin

OWN = "atomlab"  # key in the metadata of a file that this package wrote
_TRACER_ACTIVATIONS = {"TopK": "k", "jumprelu": "activation_function.threshold"}  # by the tensor that shows each
_TRACER = {
    "W_enc": Stored("W_enc", transposed=True),
    "b_enc": Stored("b_enc"),
    "W_dec": Stored("W_dec"),
    "b_dec": Stored("b_dec"),
}


def find(path: Path) -> Found | None:
    """Finds the SAE in one safetensors file.

    - Files of this package hold the five parameters of a TSAE, and in their metadata what a cfg.json would say.
    - circuit-tracer's files hold W_enc with latents as rows; f = relu(z)·[z > θ] with `activation_function.threshold`, or
      TopK with `k`. Nearly all are transcoders, and their tensors do not show it: the config.yaml beside a file must name the
      same site as `feature_input_hook` and `feature_output_hook`. circuit-tracer computes f = relu(z) of a file with neither
      tensor, also where they were lost: here config.yaml must say `activation: relu`.

    Args:
        path: a `.safetensors` file.

    Returns:
        The SAE, which reads raw activations; None if the path is no such file or has other tensors.

    Raises:
        ValueError: the file is damaged, lacks one tensor of circuit-tracer's, is a transcoder, or does not say what it is.
    """
    if path.suffix != ".safetensors" or not path.exists():
        return None
    file = open_safetensors(path)
    if OWN in file.extra:
        return _own(file)
    return _tracer(file) if is_of_layout(file, _TRACER, "circuit-tracer") else None


def _own(file: TensorFile) -> Found:
    try:
        stated = json.loads(file.extra[OWN])
        centred, details = stated["apply_b_dec_to_input"], dict(stated["metadata"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file.path} has {OWN}={file.extra[OWN]!r} in its metadata, which is not what atomlab writes: save it again."
        ) from error
    if type(centred) is not bool:
        raise ValueError(f"{file.path} has apply_b_dec_to_input={centred!r}: expected true or false.")
    origin = Origin("atomlab", "jumprelu", text(details, "model_name"), text(details, "hook_name"), details=details)
    return Found(file.path, origin, partial(_read_own, file, centred, origin))


def _read_own(file: TensorFile, centred: bool, origin: Origin) -> SAE:
    return threshold_sae(read_weights(file, plainly(*PARAMETERS)), origin, apply_b_dec_to_input=centred)


def _tracer(file: TensorFile) -> Found:
    kind = "a circuit-tracer file"
    place = file.path.parent / "config.yaml"
    config: dict[str, Any] = read_config(place) if place.exists() else {}
    reads, writes = (text(config, f"feature_{side}_hook") for side in ("input", "output"))
    if "W_skip" in file.shapes or (reads and writes and reads != writes):
        raise transcoder(file.path, kind, reads, writes)
    if not reads or not writes:
        raise ValueError(
            f"{file.path} has the tensors of {kind}, nearly all of which are transcoders, and "
            f"{place.name} beside it {'names no two sites' if place.exists() else 'is missing'}: if it reconstructs what it "
            f"reads, write that site into {place} as feature_input_hook and as feature_output_hook."
        )
    activation = _activation(file, config, place)
    layer = re.fullmatch(r"(?:.*[^\d])?(\d+)", file.path.stem)
    origin = Origin(
        "circuit-tracer", activation, text(config, "model_name"), f"blocks.{layer[1]}.{reads}" if layer else reads
    )
    return Found(file.path, origin, partial(_read_tracer, file, origin))


def _activation(file: TensorFile, config: dict[str, Any], place: Path) -> str:
    """Returns the activation that the tensors show; without a threshold or k they may be of any, so that config.yaml must say."""
    if shown := [name for name, key in _TRACER_ACTIVATIONS.items() if key in file.shapes]:
        return shown[0]
    if config.get("activation") != "relu":
        raise ValueError(
            f"{file.path} has no {' and no '.join(_TRACER_ACTIVATIONS.values())}, and {place} has "
            f"activation={config.get('activation')!r:.60}: expected one of the two tensors, or activation: relu there if it is "
            f"a ReLU, {found_in(file)}."
        )
    return "ReLU"


def _read_tracer(file: TensorFile, origin: Origin) -> SAE:
    jumps = {"threshold": Stored(_TRACER_ACTIVATIONS["jumprelu"])} if origin.architecture == "jumprelu" else {}
    ignored = ("k",) if origin.architecture == "TopK" else ()
    weights = read_weights(file, _TRACER | jumps, kind="a circuit-tracer SAE", ignored=ignored)
    if origin.architecture == "TopK":
        if file.shapes["k"] not in ((), (1,)):
            raise ValueError(f"{file.path}: k should be one number, found a tensor of shape {file.shapes['k']}.")
        return top_k_sae(weights, int(file.read("k")), origin, stated=f"{file.path}: k")
    weights.setdefault("threshold", torch.zeros_like(weights["b_enc"]))
    return threshold_sae(weights, origin)
