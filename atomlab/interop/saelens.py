"""Reads and writes TSAEs as folders in the JumpReLU format of SAELens 6: cfg.json and sae_weights.safetensors."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atomlab.files import atomic_write, regular, sha256
from atomlab.interop.integrity import check_checksum, write_checksums
from atomlab.interop.sae_from_tensors import sae_of_weights
from atomlab.sae.autoencoder import ThresholdSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_SAELENS_VERSION = "6.54.12"  # readers take a file with no version, or one below 6, for an older format
_CHECKSUM = "weights_sha256"  # in the metadata of cfg.json, which SAELens passes on unchanged
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
_log = logging.getLogger(__name__)


def save_sae(sae: ThresholdSAE, folder: Path, metadata: Mapping[str, object]) -> None:
    """Writes a TSAE of raw activations as a SAELens folder, in float32 and with W_enc as a tensor of its own.

    Each file is written completely or not at all. The checksums of both go into `SHA256SUMS`, and that of the weights into
    cfg.json as well, so that `load_sae` finds damage and files of different SAEs.

    Args:
        sae: the TSAE. One that was trained in other coordinates must be folded first (`atomlab.sae.fold`).
        folder: where to write. Files of the same names are replaced.
        metadata: further entries for `metadata` in cfg.json; anything that JSON can hold.

    Raises:
        OSError: the folder cannot be written to.
    """
    weights = {"W_enc": sae.W_enc, **{name: getattr(sae, name) for name in ("b_enc", "W_dec", "b_dec", "threshold")}}
    with atomic_write(folder / CONFIG) as config_file, atomic_write(folder / WEIGHTS) as weights_file:
        save_file({name: value.detach().float().cpu().contiguous() for name, value in weights.items()}, weights_file)
        config = {
            "architecture": "jumprelu",
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": sae.apply_b_dec_to_input,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": _SAELENS_VERSION, **metadata, _CHECKSUM: sha256(weights_file)},
        }
        config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_checksums(folder, (CONFIG, WEIGHTS))


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
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds no SAE: {name} is missing.")
        regular(folder / name)
    check_checksum(folder, CONFIG)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is no readable JSON ({error}): save the SAE again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} holds a {type(config).__name__}: expected a JSON object.")
    if not isinstance(config.get("metadata") or {}, dict):
        raise ValueError(f"{folder / CONFIG} has metadata={config['metadata']!r:.60}: expected a JSON object.")
    return config


def load_sae(folder: str | Path) -> ThresholdSAE:
    """Reads the TSAE in a SAELens folder. `atomlab.load` is the same function.

    Two architectures can be read: `jumprelu`, f = relu(z)·[z > θ], where θ < 0 acts as 0; and `standard`, f = relu(z),
    which is θ = 0. A cfg.json that names no architecture comes from an old SAELens and means `standard`.

    Both files are compared with `SHA256SUMS`, or the weights with the checksum in cfg.json. If there is neither, a log line
    says that they are unchecked.

    Args:
        folder: the SAELens folder; a leading ~ is the home folder.

    Returns:
        The TSAE of raw activations, in float32 on the CPU. Its parameters ask for no gradient, so that codes can be used
        as plain numbers; `requires_grad_()` turns that on for a training. Its atoms have the norms that the file has: those
        of a run of atomlab have unit norm in the metric S of the run, and Euclidean norms that differ from atom to atom.

    Raises:
        FileNotFoundError: cfg.json or the weights are missing.
        ValueError: the SAE is of another kind, does not read raw activations, is damaged, or has tensors of wrong
            shapes or values that are not finite.
    """
    folder = Path(folder).expanduser()
    config = load_config(folder)
    _refuse_other_kinds(folder / CONFIG, config)
    if not check_checksum(folder, WEIGHTS):
        _compare_checksum(folder, config)
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged ({' '.join(str(error).split())[:200]}): save the SAE again."
        ) from error
    if not torch.equal(scale := weights.pop("scaling_factor", torch.ones(1)), torch.ones_like(scale)):
        raise ValueError(
            f"{folder / WEIGHTS} has a scaling_factor that is not 1: multiply W_dec by it and leave it out."
        )
    kind = config.get("architecture")
    if kind != "jumprelu":
        if "threshold" in weights:
            raise ValueError(
                f"{folder / WEIGHTS} has a threshold, and {CONFIG} says architecture={kind!r:.60}, which has none: write "
                f"'jumprelu' in {CONFIG}, or take the threshold out of the weights."
            )
        weights["threshold"] = torch.zeros(len(weights.get("b_enc", ())))
    sae = sae_of_weights(weights, folder / WEIGHTS, apply_b_dec_to_input=config.get("apply_b_dec_to_input", True))
    stated = (config.get("d_in", sae.d_in), config.get("d_sae", sae.d_sae))
    if stated != (sae.d_in, sae.d_sae) or any(type(size) is not int for size in stated):
        raise ValueError(
            f"{folder / CONFIG} has d_in={stated[0]!r:.40}, d_sae={stated[1]!r:.40}, and W_dec is of shape "
            f"{(sae.d_sae, sae.d_in)}: the two files are of different SAEs."
        )
    return sae.requires_grad_(False)


def _compare_checksum(folder: Path, config: Mapping[str, Any]) -> None:
    stated = (config.get("metadata") or {}).get(_CHECKSUM)
    if stated is None:
        _log.info(
            "%s is unchecked: cfg.json has no checksum of it, since it was not saved by atomlab.", folder / WEIGHTS
        )
    elif sha256(folder / WEIGHTS) != stated:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged or of another SAE: its checksum is not the one in {CONFIG} "
            f"({_CHECKSUM}); copy the folder again, or save the SAE again."
        )


def _refuse_other_kinds(file: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("architecture")
    if kind not in (None, "jumprelu", "standard"):
        raise ValueError(f"{file} is of a {kind!r:.60} SAE, and only 'jumprelu' and 'standard' (ReLU) can be read.")
    for name, neutral in _NEUTRAL.items():
        value = config.get(name)
        if not any(type(value) is type(one) and value == one for one in neutral):
            raise ValueError(
                f"{file} has {name}={value!s:.60}, and only {' or '.join(map(repr, neutral))} can be read: a threshold SAE of "
                "raw activations is expected, so fold the rest into the weights."
            )
    if type(config.get("apply_b_dec_to_input", True)) is not bool:
        raise ValueError(
            f"{file} has apply_b_dec_to_input={config['apply_b_dec_to_input']!r:.60}: expected true or false."
        )
