"""A TSAE as a folder in the SAELens (>= 6) JumpReLU format: cfg.json and sae_weights.safetensors."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_READABLE = ("jumprelu", "standard")
_LEGACY = "standard"  # what SAELens takes a file without an architecture for
_SAELENS_VERSION = "6.54.12"  # readers take files without a version >= 6 for an older format


def save_sae(sae: ThresholdSAE, folder: Path, metadata: Mapping[str, object]) -> None:
    """Writes the folder; each file is complete or absent. Float32, free encoder, inputs raw (fold first)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"W_enc": sae.W_enc, **{name: getattr(sae, name) for name in ("b_enc", "W_dec", "b_dec", "threshold")}}
    config = {
        "architecture": "jumprelu",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _SAELENS_VERSION, **metadata},
    }
    temporary = folder / f".writing-{WEIGHTS}"
    try:
        save_file({name: value.detach().float().cpu().contiguous() for name, value in weights.items()}, temporary)
        os.replace(temporary, folder / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    temporary = folder / f".writing-{CONFIG}"
    temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CONFIG)


def load_config(folder: Path) -> dict[str, Any]:
    """What an SAE's cfg.json says.

    Raises:
        FileNotFoundError: cfg.json or the weights are missing.
        ValueError: cfg.json is no JSON object.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds no SAE: {name} is missing.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is no readable JSON ({error}): save the SAE again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} holds a {type(config).__name__}: expected a JSON object.")
    return config


def load_sae(folder: Path) -> ThresholdSAE:
    """The TSAE of a SAELens folder: `jumprelu`, relu(z)·[z > θ], in which θ < 0 acts as 0; or `standard`, relu(z), which
    is θ = 0.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an SAE of another kind, one that does not read raw activations, damaged, of wrong shapes or not
            finite.
    """
    config = load_config(folder)
    _refuse_other_kinds(folder, config)
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged ({error}): save the SAE again.") from error
    if "W_dec" not in weights or weights["W_dec"].ndim != 2:
        raise ValueError(f"{folder / WEIGHTS} has no W_dec of shape (d_sae, d_in): expected a SAELens SAE.")
    d_sae, d_in = weights["W_dec"].shape
    if (config.get("d_in", d_in), config.get("d_sae", d_sae)) != (d_in, d_sae):
        raise ValueError(
            f"{folder / CONFIG} has d_in={config.get('d_in')}, d_sae={config.get('d_sae')}, and W_dec is of shape "
            f"{(d_sae, d_in)}: the two files are of different SAEs."
        )
    if config.get("architecture", _LEGACY) == "standard":
        weights["threshold"] = torch.zeros(d_sae)
    if not (weights.get("scaling_factor", torch.ones(1)) == 1).all():
        raise ValueError(f"{folder / WEIGHTS} has a scaling_factor: fold it into W_dec and leave it out.")
    sae = ThresholdSAE(d_in, d_sae, apply_b_dec_to_input=config.get("apply_b_dec_to_input", True))
    load_weights_(sae, weights, folder / WEIGHTS)
    return sae


@torch.no_grad()
def load_weights_(sae: ThresholdSAE, weights: Mapping[str, Tensor], source: Path) -> None:
    """Sets all parameters, in float32 and with θ at 0 or above. Raises ValueError on one that is missing, of another
    shape or not finite."""
    for name, expected in sae.state_dict().items():
        found = weights.get(name)
        if found is None or found.shape != expected.shape or not torch.isfinite(found).all():
            shape = None if found is None else tuple(found.shape)
            raise ValueError(f"{source}: {name} should be finite of shape {tuple(expected.shape)}, found {shape}.")
    sae.load_state_dict({name: weights[name].float() for name in sae.state_dict()})
    sae.clamp_thresholds_()


def _refuse_other_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    kind, activation = config.get("architecture", _LEGACY), config.get("activation_fn", config.get("activation_fn_str"))
    if kind not in _READABLE:
        raise ValueError(f"{folder} holds a {kind!r} SAE, and only 'jumprelu' and 'standard' (ReLU) can be read.")
    if activation not in (None, "relu"):
        raise ValueError(f"{folder} holds an SAE with activation {activation!r}, and only 'relu' can be read.")
    if config.get("normalize_activations") not in (None, False, "none"):
        raise ValueError(
            f"{folder / CONFIG} has normalize_activations={config['normalize_activations']}, and raw activations are "
            "read here: fold the normalisation into the weights and set it to 'none'."
        )
    if config.get("reshape_activations") not in (None, "none", "hook_z"):  # heads' outputs are flat here already
        raise ValueError(
            f"{folder / CONFIG} has reshape_activations={config['reshape_activations']}, and activations are vectors "
            "here: only 'none' and 'hook_z' can be read."
        )
