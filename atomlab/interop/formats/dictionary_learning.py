"""Reads folders of dictionary_learning: ae.pt, whose keys depend on the class, beside a config.json."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.interop.config_file import number, read_config, text
from atomlab.interop.formats.found import Found, cannot_hold, folder_of, transcoder, warn_of_transcoders
from atomlab.interop.layout import Stored, found_in, plainly
from atomlab.interop.sae_from_tensors import PARAMETERS, gated_as_threshold, read_weights, threshold_sae, top_k_sae
from atomlab.interop.tensor_file import TensorFile, inside, open_torch
from atomlab.sae import SAE, Origin

WEIGHTS, CONFIG = "ae.pt", "config.json"
_KIND = "a dictionary_learning folder"
_LINEAR = {
    "W_enc": Stored("encoder.weight", transposed=True),
    "b_enc": Stored("encoder.bias"),
    "W_dec": Stored("decoder.weight", transposed=True),
}
_GATED = {
    "W_enc": Stored("encoder.weight", transposed=True),
    "r_mag": Stored("r_mag"),
    "b_gate": Stored("gate_bias"),
    "b_mag": Stored("mag_bias"),
    "W_dec": Stored("decoder.weight", transposed=True),
    "b_dec": Stored("decoder_bias"),
}
_LAYOUTS = {
    "AutoEncoder": _LINEAR | {"b_dec": Stored("bias")},
    "AutoEncoderNew": _LINEAR | {"b_dec": Stored("decoder.bias")},
    "GatedAutoEncoder": _GATED,
    "JumpReluAutoEncoder": plainly(*PARAMETERS),
    "AutoEncoderTopK": _LINEAR | {"b_dec": Stored("b_dec")},
    "BatchTopKSAE": _LINEAR | {"b_dec": Stored("b_dec")},
    "MatryoshkaBatchTopKSAE": plainly("W_enc", "b_enc", "W_dec", "b_dec"),
}
_CENTRED = ("AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_SCALARS = ("k", "threshold", "group_sizes")


def find(path: Path) -> Found | None:
    """Finds an SAE of dictionary_learning, of any of the seven classes that its trainers make.

    - `AutoEncoder`, `AutoEncoderNew`: f = relu(z); `JumpReluAutoEncoder`: f = relu(z)·[z > θ].
    - `BatchTopKSAE`, `MatryoshkaBatchTopKSAE` (with all groups): one threshold θ for all latents, as their `encode` has it;
      the value −1 means that training had not set it.
    - `GatedAutoEncoder`: the threshold SAE of the same function (`gated_as_threshold`).
    - `AutoEncoderTopK`: a TopK SAE.

    All but `AutoEncoderNew` and `JumpReluAutoEncoder` subtract b_dec from x. A backup, which nests the SAE with the
    optimiser's state, is read as well: it was trained on x/c with its `norm_factor` c, and biases and thresholds are
    multiplied by c, as dictionary_learning does at the end of a training.

    Args:
        path: the folder, or its `ae.pt`, or a file of its `checkpoints` (`ae_<step>.pt`).

    Returns:
        The SAE, which reads raw activations; None if no such file is there.

    Raises:
        ValueError: it is of an unknown class or a transcoder, has no threshold yet, or its files are damaged.
    """
    named = path.suffix == ".pt" and (path.name == WEIGHTS or path.name.startswith("ae_"))
    weights = path if named else folder_of(path, CONFIG) / WEIGHTS
    if not weights.is_file():
        return None
    whole = open_torch(weights)
    nested = any(key.startswith("ae/") for key in whole.shapes)
    file = inside(whole, "ae") if nested else whole
    places = (weights.parent / CONFIG, weights.parent.parent / CONFIG)
    config = next((read_config(place) for place in places if place.exists()), {})
    trainer, buffer = (_part(config, name) for name in ("trainer", "buffer"))
    kind = text(trainer, "dict_class") or _kind_by_keys(file)
    if kind not in _LAYOUTS:
        stated = (
            text(trainer, "trainer_class") or kind or f"none that its tensors show: {', '.join(list(file.shapes)[:6])}"
        )
        raise cannot_hold(
            weights.parent,
            f"{_KIND}, trainer class {stated},",
            f"the class {kind}",
            f"{', '.join(_LAYOUTS)} can be read",
        )
    if buffer.get("io") == "in_and_out":
        raise transcoder(weights.parent, _KIND)
    scale = _norm_factor(whole) if nested else 1.0
    origin = _origin(kind, trainer, buffer, scale)
    return Found(weights, origin, partial(_read, file, kind, scale, config, origin))


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _kind_by_keys(file: TensorFile) -> str | None:
    """Returns the class whose parameters the tensors are; TopK and BatchTopK have the same, and differ in nothing but codes."""
    keys = set(file.shapes) - set(_SCALARS[:1]) - set(_SCALARS[2:])
    if "group_sizes" in file.shapes:
        return "MatryoshkaBatchTopKSAE"
    if keys == {"encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "threshold"}:
        return None  # AutoEncoderTopK or BatchTopKSAE: only config.json tells
    found = (kind for kind, layout in _LAYOUTS.items() if keys == {stored.key for stored in layout.values()})
    return next(found, None)


def _norm_factor(file: TensorFile) -> float:
    value = file.extra.get("norm_factor")
    if value is None and file.shapes.get("norm_factor") == ():
        value = float(file.read("norm_factor"))
    return 1.0 if value is None else number(file.path, {"norm_factor": value}, "norm_factor")


def _origin(kind: str, trainer: Mapping[str, Any], buffer: Mapping[str, Any], scale: float) -> Origin:
    layer, submodule = trainer.get("layer"), text(dict(trainer), "submodule_name")
    site = submodule
    if type(layer) is int and (submodule is None or "resid_post" in submodule):
        site = f"blocks.{layer}.hook_resid_post"
    scaled = "none" if scale == 1 else f"inputs divided by {scale:g}, folded into the weights"
    details = {"context_size": buffer["ctx_len"]} if type(buffer.get("ctx_len")) is int else {}
    return Origin("dictionary_learning", kind, text(dict(trainer), "lm_name"), site, scaled, details)


def _read(file: TensorFile, kind: str, scale: float, config: Mapping[str, Any], origin: Origin) -> SAE:
    if not config:
        warn_of_transcoders(file.path, f"the missing {CONFIG}")
    trainer, layout = _part(config, "trainer"), _LAYOUTS[kind]
    kept = {stored.key for stored in layout.values()}
    sizes = (trainer.get("activation_dim"), trainer.get("dict_size"))
    ignored = [key for key in _SCALARS if key not in kept]
    weights = read_weights(file, layout, kind=f"a {kind}", sizes=sizes, ignored=ignored)
    if kind == "GatedAutoEncoder":
        weights = gated_as_threshold(weights)
    elif "BatchTopK" in kind:
        weights["threshold"] = torch.full_like(weights["b_enc"], _threshold(file, kind))
    elif kind in ("AutoEncoder", "AutoEncoderNew"):
        weights["threshold"] = torch.zeros_like(weights["b_enc"])
    weights |= {name: weights[name] * scale for name in ("b_enc", "b_dec", "threshold") if name in weights}
    if kind == "AutoEncoderTopK":
        stated = f"{file.path}: k" if "k" in file.shapes else f"{CONFIG} of {file.path}: trainer.k"
        return top_k_sae(weights, _k(file, trainer), origin, stated=stated, apply_b_dec_to_input=True)
    return threshold_sae(weights, origin, apply_b_dec_to_input=kind in _CENTRED)


def _threshold(file: TensorFile, kind: str) -> float:
    found = file.shapes.get("threshold")
    value = float(file.read("threshold")) if found == () else None
    if value is None or not 0 <= value < float("inf"):
        said = "no number threshold" if value is None else f"threshold={value:g}"
        raise ValueError(
            f"{file.path} has {said}: a {kind} needs the one that its training sets from step 1000 on (threshold_start_step), "
            f"so train it further: expected a number of 0 or more, {found_in(file)}."
        )
    return value


def _k(file: TensorFile, trainer: Mapping[str, Any]) -> int:
    value: Any = trainer.get("k")
    if file.shapes.get("k") == ():
        stored: Tensor = file.read("k")
        value = int(stored)
    if type(value) is not int or value < 1:
        raise ValueError(
            f"{file.path} has k={value!r}: expected a whole number above 0, in it or in {CONFIG}, {found_in(file)}."
        )
    return value
