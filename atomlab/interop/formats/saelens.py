"""Reads SAELens folders, of version 6 and older, after training or of its checkpoints: cfg.json and sae_weights.safetensors.

The rule for old files is SAELens's own: with no `sae_lens_version`, or one below 6, names of fields are the old ones and
what describes the language model stands at top level.
"""

import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.files import sha256
from atomlab.interop.config_file import count, number, read_config, text
from atomlab.interop.formats.found import Found, cannot_hold, folder_of, transcoder
from atomlab.interop.integrity import check_checksum
from atomlab.interop.layout import Stored, found_in, plainly
from atomlab.interop.sae_from_tensors import (
    PARAMETERS,
    gated_as_threshold,
    of_scaled_inputs,
    of_unit_atoms,
    read_transform,
    read_weights,
    threshold_sae,
    top_k_sae,
)
from atomlab.interop.tensor_file import TensorFile, open_safetensors
from atomlab.sae import SAE, Origin, fold

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
CHECKSUM = "weights_sha256"  # in the metadata of cfg.json, which SAELens passes on unchanged
_SCALER, _WHITENING = "activation_scaler.json", "activation_whitening.safetensors"  # of its training checkpoints
_ARCHITECTURES = ("jumprelu", "standard", "gated", "topk", "batchtopk", "matryoshka_batchtopk")
_KIND = "a SAELens folder"
# Fields of cfg.json that can change what the SAE computes or which site it reads, and the values that change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "activation_fn": (None, "relu"),
    "activation_fn_str": (None, "relu"),
    "activation_fn_kwargs": (None, {}),
    "normalize_activations": (None, False, "none"),
    "reshape_activations": (None, "none", "hook_z"),  # this package's attn_z is already the concatenation of all heads
    "finetuning_scaling_factor": (None, False),
    "rescale_acts_by_decoder_norm": (None, False),
    "hook_head_index": (None,),
    "use_error_term": (None, False),
    "d_out": (None,),  # set for transcoders only, which reconstruct another site than they read
    "hook_name_out": (None,),
    "skip": (None, False),
    "skip_connection": (None, False),
}
# What describes the language model and the data; it stands in `metadata`, or at top level in old files.
_DETAILS = (
    "hook_name", "hook_head_index", "hf_hook_name", "model_name", "model_class_name", "model_from_pretrained_kwargs",
    "context_size", "prepend_bos", "dataset_path", "seqpos_slice", "exclude_special_tokens", "neuronpedia_id",
    "training_architecture", "l0", "num_dead_features", "sae_lens_version", "sae_lens_training_version",
)  # fmt: skip
_log = logging.getLogger(__name__)


def find(path: Path) -> Found | None:
    """Finds the SAE in a SAELens folder.

    - `jumprelu`: f = relu(z)·[z > θ]. `standard`: f = relu(z), which is θ = 0; so is an architecture that is not named.
    - `batchtopk` and `matryoshka_batchtopk` of a training checkpoint: their one threshold, as SAELens saves them at the end.
    - `gated`: the threshold SAE of the same function (`gated_as_threshold`).
    - `topk`: a TopK SAE.

    Inputs that a training checkpoint scales or whitens are folded into the weights; the files beside it have the numbers.

    Args:
        path: the folder, or one of its two files.

    Returns:
        The SAE, which reads raw activations; None if there is no such folder.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: the SAE is of another kind, or cfg.json is damaged or contradicts itself.
    """
    folder = folder_of(path, CONFIG, WEIGHTS)
    if not folder.is_dir() or not ((folder / CONFIG).exists() or (folder / WEIGHTS).exists()):
        return None
    config = load_config(folder)
    kind = _architecture(folder / CONFIG, config)
    _refuse_other_kinds(folder / CONFIG, kind, config)
    if not check_checksum(folder, WEIGHTS):
        _compare_checksum(folder, config)
    file = open_safetensors(folder / WEIGHTS)
    return Found(file.path, _origin(config, kind), partial(_read, folder, file, config, kind))


def load_config(folder: Path) -> dict[str, Any]:
    """Reads the cfg.json of a SAELens folder, and checks that the weights lie beside it.

    Args:
        folder: the SAELens folder.

    Returns:
        The fields of cfg.json as JSON holds them, unchecked but for `metadata`, which is an object, null or absent.

    Raises:
        FileNotFoundError: cfg.json or the weights are missing.
        ValueError: one of the two is not an ordinary file, or cfg.json or its metadata is not a JSON object.
    """
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]:
        there = sorted(entry.name for entry in folder.iterdir())[:8] if folder.is_dir() else []
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}: expected both {CONFIG} and {WEIGHTS} in a SAELens folder, found "
            f"{', '.join(there) or 'no folder'}; copy the whole folder, or give the file of the weights itself."
        )
    check_checksum(folder, CONFIG)
    config = read_config(folder / CONFIG)
    if not isinstance(config.get("metadata") or {}, dict):
        raise ValueError(f"{folder / CONFIG} has metadata={config['metadata']!r:.60}: expected a JSON object.")
    return config


def details_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Collects what a cfg.json says of the language model and the data, from `metadata` and, in old files, top level."""
    old = {"hook_name": config.get("hook_point"), "hook_head_index": config.get("hook_point_head_index")}
    places = (config.get("metadata") or {}, config, old)
    found = {name: next((p[name] for p in places if p.get(name) is not None), None) for name in _DETAILS}
    return {name: value for name, value in found.items() if value is not None}


def _origin(config: Mapping[str, Any], kind: str) -> Origin:
    details = details_of(config)
    heads = "attn.hook_z" if config.get("reshape_activations") == "hook_z" else None
    normalised = config.get("normalize_activations") or "none"
    return Origin(
        "SAELens",
        str(config.get("architecture") or kind),
        model=text(details, "model_name"),
        site=text(details, "hook_name") or heads,
        normalisation="none" if normalised == "none" else f"{normalised}, folded into the weights",
        details=details,
    )


def _is_new(config: Mapping[str, Any]) -> bool:
    """Says whether a cfg.json is of SAELens 6 or later, whose every file names its architecture."""
    version = details_of(config).get("sae_lens_version")
    major = re.match(r"\d+", version) if isinstance(version, str) else None
    return major is not None and int(major[0]) >= 6


def _architecture(file: Path, config: Mapping[str, Any]) -> str:
    """Returns the architecture; that of old files with a TopK activation is not named so."""
    if config.get("architecture") is None and _is_new(config):
        raise ValueError(
            f"{file} has no architecture: expected one of {', '.join(_ARCHITECTURES)}, as SAELens writes it since version 6, "
            "since the same weights compute other codes in another one."
        )
    kind = config.get("architecture") or "standard"
    if "topk" in (config.get("activation_fn"), config.get("activation_fn_str")) and kind == "standard":
        return "topk"
    if isinstance(kind, str) and "transcoder" in kind:
        raise transcoder(file, _KIND)
    if kind not in _ARCHITECTURES:
        raise ValueError(f"{file} is of a {kind!r:.60} SAE, and only {', '.join(_ARCHITECTURES)} can be read.")
    return kind


def _refuse_other_kinds(file: Path, kind: str, config: Mapping[str, Any]) -> None:
    able = {"normalize_activations"} if _scaled(file.parent, config) else set()
    if kind == "topk":
        able |= {"activation_fn", "activation_fn_str", "activation_fn_kwargs", "rescale_acts_by_decoder_norm"}
    if kind.endswith("batchtopk"):
        able |= {"rescale_acts_by_decoder_norm"}
    stated = {
        **config,
        "hook_head_index": details_of(config).get("hook_head_index"),
    }  # in metadata, or where old files have it
    for name, neutral in _NEUTRAL.items():
        value = stated.get(name)
        if name not in able and not any(type(value) is type(one) and value == one for one in neutral):
            raise ValueError(
                f"{file} has {name}={value!s:.60}, and only {' or '.join(map(repr, neutral))} can be read: a threshold SAE of "
                "raw activations is expected, so fold the rest into the weights."
            )
    if type(config.get("apply_b_dec_to_input", True)) is not bool:
        raise ValueError(
            f"{file} has apply_b_dec_to_input={config['apply_b_dec_to_input']!r:.60}: expected true or false."
        )


def _scaled(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Returns the file with the numbers of the inputs' normalisation, if they are normalised and it lies in the folder."""
    beside = {True: _SCALER, "expected_average_only_in": _SCALER, "covariance_whitening": _WHITENING}
    normalised = config.get("normalize_activations")
    name = beside.get(normalised) if isinstance(normalised, str | bool) else None
    return name if name is not None and (folder / name).exists() else None


def _read(folder: Path, file: TensorFile, config: dict[str, Any], kind: str) -> SAE:
    weights = _weights(file, config, kind)
    centred = config.get("apply_b_dec_to_input", True)
    if config.get("rescale_acts_by_decoder_norm"):
        weights = of_unit_atoms(weights)
    if (beside := _scaled(folder, config)) == _SCALER:
        scale = number(folder / _SCALER, read_config(folder / _SCALER), "scaling_factor")
        weights = of_scaled_inputs(weights, scale)
    origin = _origin(config, kind)
    if kind == "topk":
        if beside == _WHITENING:
            raise cannot_hold(
                folder, _KIND, "a TopK of whitened inputs", "fold the whitening in SAELens and save it again"
            )
        place = config | {"k": config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")}
        k, stated = count(folder / CONFIG, place, "k"), f"{folder / CONFIG}: k"
        return top_k_sae(weights, k, origin, stated=stated, apply_b_dec_to_input=centred)
    sae = threshold_sae(weights, origin, apply_b_dec_to_input=centred)
    if beside == _WHITENING:
        white = open_safetensors(folder / _WHITENING)
        names = {"mean": "mean", "matrix": "matrix", "inverse": "inverse_matrix"}
        tensors = {own: white.read(key) for own, key in names.items() if key in white.shapes}
        sae = fold(sae, read_transform(tensors, sae.d_in, white.path))
        sae.origin = origin
    return sae


def _weights(file: TensorFile, config: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    """Reads the parameters as those of a threshold SAE; a TopK SAE has no threshold."""
    if "scaling_factor" in file.shapes:
        scale = file.read("scaling_factor")
        if not torch.equal(scale, torch.ones_like(scale)):
            raise ValueError(f"{file.path} has a scaling_factor that is not 1: multiply W_dec by it and leave it out.")
    if kind in ("standard", "topk") and "threshold" in file.shapes:
        stated = config.get("architecture")
        raise ValueError(
            f"{file.path} has a threshold, and {CONFIG} says architecture={stated!r:.60}, which has none: write "
            f"'jumprelu' in {CONFIG}, or take the threshold out of the weights."
        )
    common = ("W_enc", "b_enc", "W_dec", "b_dec")
    parameters = {"gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"), "jumprelu": PARAMETERS}
    layout = plainly(*parameters.get(kind, common))
    logarithm = kind == "jumprelu" and "log_threshold" in file.shapes and "threshold" not in file.shapes
    if logarithm:
        layout |= {"threshold": Stored("log_threshold")}
    sizes = config.get("d_in"), config.get("d_sae")
    of_batch = kind.endswith("batchtopk")
    ignored = ("scaling_factor", *(("topk_threshold",) if of_batch else ()))
    weights = read_weights(file, layout, sizes=sizes, ignored=ignored)
    if kind == "gated":
        return gated_as_threshold(weights)
    if logarithm:
        weights["threshold"] = weights["threshold"].exp()
    if kind == "standard":
        weights["threshold"] = torch.zeros_like(weights["b_enc"])
    if of_batch:
        if file.shapes.get("topk_threshold", (0,)) != () or not 0 <= float(file.read("topk_threshold")) < float("inf"):
            raise ValueError(
                f"{file.path} has no number topk_threshold of 0 or more: expected the threshold of a {kind}, {found_in(file)}; "
                "save the finished SAE in SAELens again."
            )
        weights["threshold"] = torch.full_like(weights["b_enc"], float(file.read("topk_threshold")))
    return weights


def _compare_checksum(folder: Path, config: Mapping[str, Any]) -> None:
    stated = (config.get("metadata") or {}).get(CHECKSUM)
    if stated is None:
        _log.info(
            "%s is unchecked: cfg.json has no checksum of it, since it was not saved by atomlab.", folder / WEIGHTS
        )
    elif sha256(folder / WEIGHTS) != stated:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged or of another SAE: its checksum is not the one in {CONFIG} "
            f"({CHECKSUM}); copy the folder again, or save the SAE again."
        )
