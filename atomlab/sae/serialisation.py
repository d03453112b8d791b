"""A TSAE as a folder in the SAELens (>= 6) JumpReLU format: cfg.json and sae_weights.safetensors."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atomlab.sae.autoencoder import ThresholdSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
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


def load_sae(folder: Path) -> ThresholdSAE:
    """The TSAE of a folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: not a JumpReLU SAE, damaged, of wrong shapes or not finite.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds no SAE: {name} is missing.")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("architecture") != "jumprelu":
        raise ValueError(f"{folder} holds a {config.get('architecture')!r} SAE, and only 'jumprelu' can be read.")
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged ({error}): save the SAE again.") from error
    sae = ThresholdSAE(config["d_in"], config["d_sae"], apply_b_dec_to_input=config.get("apply_b_dec_to_input", True))
    for name, expected in sae.state_dict().items():
        found = weights.get(name)
        if found is None or found.shape != expected.shape or not torch.isfinite(found).all():
            shape = None if found is None else tuple(found.shape)
            raise ValueError(
                f"{folder / WEIGHTS}: {name} should be finite of shape {tuple(expected.shape)}, found {shape}."
            )
    sae.load_state_dict({name: weights[name].float() for name in sae.state_dict()})
    return sae
