"""Reads Llamascopium folders (config.json and sae_weights.safetensors) and Llama Scope's, the same family's first release
(hyperparams.json and checkpoints/final.safetensors).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.interop.config_file import count, number, read_config, text
from atomlab.interop.formats.found import Found, cannot_hold, folder_of, transcoder
from atomlab.interop.layout import Stored, found_in
from atomlab.interop.sae_from_tensors import of_scaled_inputs, of_unit_atoms, read_weights, threshold_sae, top_k_sae
from atomlab.interop.tensor_file import TensorFile, open_safetensors
from atomlab.sae import SAE, Origin

CONFIG, WEIGHTS, LANGUAGE_MODEL = "config.json", "sae_weights.safetensors", "lm_config.json"
FIRST_CONFIG, FIRST_WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_KIND, _FIRST = "a Llamascopium folder", "a Llama Scope folder"
_NORM = "dataset_average_activation_norm"
_PLAIN = {"W_enc": Stored("W_E"), "b_enc": Stored("b_E"), "W_dec": Stored("W_D"), "b_dec": Stored("b_D")}
_LINEAR = {
    "W_enc": Stored("encoder.weight", transposed=True),
    "b_enc": Stored("encoder.bias"),
    "W_dec": Stored("decoder.weight", transposed=True),
    "b_dec": Stored("decoder.bias"),
}
_LOG_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")


def find(path: Path) -> Found | None:
    """Finds an SAE of Llamascopium, in today's files, those before 2026 or those of the first Llama Scope.

    z = s·x W_enc + b_enc with s = √d_in / (mean norm of the site); f = z·[z > θ], f = relu(z) or TopK. With
    `sparsity_include_decoder_norm` z·‖d‖ is what is compared. The scale s is folded into the weights. Of Llama Scope the
    threshold in hyperparams.json is multiplied by s, as SAELens reads it.

    Args:
        path: the folder, or its configuration or weights.

    Returns:
        The SAE, which reads raw activations; None if there is no such folder.

    Raises:
        ValueError: it is a transcoder or of another kind (crosscoder, Lorsa, MOLT, GLU encoder), normalises each vector by
            itself, or its files are damaged.
    """
    if path.parent.name == "checkpoints" and path.name == "final.safetensors":
        path = path.parent.parent
    folder = folder_of(path, CONFIG, WEIGHTS, LANGUAGE_MODEL, FIRST_CONFIG)
    if (folder / FIRST_CONFIG).exists():
        return _found(folder, folder / FIRST_CONFIG, folder / FIRST_WEIGHTS, _FIRST)
    if (folder / CONFIG).exists() and (folder / WEIGHTS).exists() and not (folder / "cfg.json").exists():
        return _found(folder, folder / CONFIG, folder / WEIGHTS, _KIND)
    return None


def _found(folder: Path, place: Path, weights: Path, kind: str) -> Found:
    config = read_config(place)
    file = open_safetensors(weights)
    reads, writes = (text(config, f"hook_point_{side}") for side in ("in", "out"))
    if writes not in (None, reads):
        raise transcoder(folder, kind, reads, writes)
    if (sae_type := config.get("sae_type", "sae")) != "sae":
        raise cannot_hold(folder, kind, f"sae_type={sae_type!r}", "only 'sae' can be read")
    if config.get("use_glu_encoder"):
        raise cannot_hold(folder, kind, "a GLU encoder", "only linear encoders can be read")
    if config.get("norm_activation") not in (None, "dataset-wise", "inference", "none"):
        remedy = "only 'dataset-wise', 'inference' and 'none' are a change of the weights"
        raise cannot_hold(folder, kind, f"norm_activation={config['norm_activation']!r:.60}", remedy)
    if kind == _KIND:
        _check_stated(place, config)
    scale = _scale(place, config, file, reads)
    beside = folder / LANGUAGE_MODEL
    model = text(read_config(beside), "model_name", "model_from_pretrained_path") if beside.exists() else None
    normalised = "none" if scale == 1 else f"inputs times {scale:g}, folded into the weights"
    activation = "jumprelu" if kind == _FIRST else str(config["act_fn"])
    model = "meta-llama/Llama-3.1-8B" if kind == _FIRST and model is None else model
    origin = Origin(kind.split(" ", 1)[1].removesuffix(" folder"), activation, model, reads, normalised)
    return Found(weights, origin, partial(_read, file, config, place, scale, origin))


def _check_stated(place: Path, config: Mapping[str, Any]) -> None:
    """Checks that what decides between functions is stated: Llamascopium writes all fields, and its defaults changed."""
    for key, kind in (("act_fn", str), ("sparsity_include_decoder_norm", bool)):
        if type(config.get(key)) is not kind:
            expected = "true or false" if kind is bool else "the name of an activation"
            raise ValueError(
                f"{place} has {key}={config.get(key)!r:.60}: expected {expected}, as Llamascopium writes it, since the same "
                "weights compute other codes without it."
            )


def _scale(place: Path, config: Mapping[str, Any], file: TensorFile, reads: str | None) -> float:
    """Returns s = √d_in / (mean norm of the site that is read); 1 if the inputs are raw or the scale is folded in."""
    if config.get("norm_activation") in ("inference", "none"):
        return 1.0
    norms = dict(config[_NORM]) if isinstance(config.get(_NORM), dict) else {}
    stored = f"{_NORM}.{reads}"
    if file.shapes.get(stored) == ():
        norms = {"in": float(file.read(stored))}
    if not norms:
        raise ValueError(
            f"{file.path} has no {stored}: expected the mean norm of the inputs, since {place.name} has "
            f"norm_activation={config.get('norm_activation')!r}, which is dataset-wise unless it says otherwise, "
            f"{found_in(file)}."
        )
    norm = number(place, {_NORM: {"in": norms.get("in", norms.get(str(reads)))}}, f"{_NORM}.in")
    return count(place, dict(config), "d_model") ** 0.5 / norm


def _read(file: TensorFile, config: dict[str, Any], place: Path, scale: float, origin: Origin) -> SAE:
    layout = dict(_LINEAR if {"encoder.weight", "decoder.weight"} & set(file.shapes) else _PLAIN)
    logarithm = next((key for key in _LOG_THRESHOLDS if key in file.shapes), None)
    jumps = origin.architecture == "jumprelu"
    if jumps and logarithm is None and config.get("jump_relu_threshold") is None:
        logarithm = _LOG_THRESHOLDS[0]  # which is then said to be missing
    if not config.get("use_decoder_bias", True):
        layout.pop("b_dec")
    stored = layout | ({"threshold": Stored(logarithm)} if jumps and logarithm else {})
    ignored = [key for key in file.shapes if key.startswith(f"{_NORM}.")]
    weights = read_weights(
        file, stored, kind="a Llamascopium SAE", sizes=(config.get("d_model"), config.get("d_sae")), ignored=ignored
    )
    weights.setdefault("b_dec", weights["W_dec"].new_zeros(weights["W_dec"].shape[1]))
    weights = of_scaled_inputs(weights, scale)
    if jumps:
        weights["threshold"] = _threshold(weights, config, place, scale)
        if config.get("sparsity_include_decoder_norm"):  # of the decoder as it was trained, before the scale
            norms = weights["W_dec"].norm(dim=1) * scale
            most = torch.finfo(norms.dtype).max  # where z·0 is above no threshold
            weights["threshold"] = torch.where(norms > 0, (weights["threshold"] / norms).clamp(max=most), most)
        return threshold_sae(weights, origin, apply_b_dec_to_input=_centred(config))
    if origin.architecture == "relu":
        weights["threshold"] = torch.zeros_like(weights["b_enc"])
        return threshold_sae(weights, origin, apply_b_dec_to_input=_centred(config))
    if origin.architecture != "topk":
        raise cannot_hold(place.parent, _KIND, f"act_fn={origin.architecture!r}", "jumprelu, relu and topk can be read")
    if config.get("sparsity_include_decoder_norm"):
        weights = of_unit_atoms(weights)
    k, stated = count(place, config, "top_k"), f"{place}: top_k"
    return top_k_sae(weights, k, origin, stated=stated, apply_b_dec_to_input=_centred(config))


def _centred(config: Mapping[str, Any]) -> bool:
    return config.get("apply_decoder_bias_to_pre_encoder") is True


def _threshold(weights: Mapping[str, Tensor], config: dict[str, Any], place: Path, scale: float) -> Tensor:
    if "threshold" in weights:
        return weights["threshold"].exp()
    return torch.full_like(weights["b_enc"], number(place, config, "jump_relu_threshold") * scale)
