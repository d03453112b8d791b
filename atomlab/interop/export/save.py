"""Writes SAEs in the formats of others: a SAELens folder, an archive as Gemma Scope's, one safetensors file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from atomlab.files import atomic_write, safetensors_written, sha256
from atomlab.interop.export.metadata import metadata_of_origin
from atomlab.interop.formats import gemma_scope, safetensors_files
from atomlab.interop.formats.saelens import CHECKSUM, CONFIG, SPARSITY, WEIGHTS
from atomlab.interop.integrity import write_checksums
from atomlab.interop.sae_from_tensors import PARAMETERS
from atomlab.sae import SAE, Gated, Relu, ThresholdSAE, TopK

Format = Literal["saelens", "gemma_scope", "safetensors"]
_SAELENS_VERSION = "6.54.12"  # readers take a file with no version, or one below 6, for an older format
_EPSILON = 1e-10  # of the logarithm of firing rates, as in SAELens
_SINGLE_FILE = "atomlab.safetensors"


def save(
    sae: SAE,
    path: str | Path,
    metadata: Mapping[str, object] | None = None,
    *,
    format: Format = "saelens",
    firing_rates: Tensor | None = None,
) -> Path:
    """Writes an SAE of raw activations in a format that others read, in float32 and with W_enc as a tensor of its own.

    - `saelens`: a folder with cfg.json, sae_weights.safetensors and, with firing rates, sparsity.safetensors. The checksum of
      the weights goes into cfg.json, so that `load` finds damage and files of different SAEs.
    - `gemma_scope`: a folder with params.npz. The format has no centring, so b_dec·W_enc is taken from b_enc where the
      encoder subtracts b_dec. It holds weights alone.
    - `safetensors`: one file with the five parameters; the metadata of the file has the rest. The path is the file's if it
      ends in `.safetensors`, and otherwise the folder of `atomlab.safetensors`.

    Args:
        sae: the SAE. One that was trained in other coordinates must be folded first (`atomlab.sae.fold`).
        path: where to write. Files of the same names are replaced, each completely or not at all.
        metadata: entries for `metadata` in cfg.json; anything that JSON can hold. None takes what `sae.origin` has.
        format: of the files.
        firing_rates: share of activations that each latent fires on, shape `(d_sae,)`; for `saelens`.

    Returns:
        The folder or file that `load` reads.

    Raises:
        ValueError: an unknown format, firing rates of another shape, or an SAE that the format cannot hold.
        OSError: the folder cannot be written to.
    """
    stated = dict(metadata_of_origin(sae.origin) if metadata is None else metadata)
    place = Path(path).expanduser()
    if firing_rates is not None and tuple(firing_rates.shape) != (sae.d_sae,):
        raise ValueError(
            f"firing_rates are of shape {tuple(firing_rates.shape)}: expected one for each of {sae.d_sae} atoms."
        )
    if format == "saelens":
        if firing_rates is not None:  # which are newer than those that the files of an origin state
            stated = (stated | _firing(firing_rates)) if metadata is None else (_firing(firing_rates) | stated)
        return _save_saelens(sae, place, stated, firing_rates)
    if format == "gemma_scope":
        return _save_gemma_scope(_threshold_sae(sae, format), place)
    if format == "safetensors":
        return _save_single(_threshold_sae(sae, format), place, stated)
    raise ValueError(f"format={format!r} is unknown: choose saelens, gemma_scope or safetensors.")


def _save_saelens(sae: SAE, folder: Path, metadata: dict[str, Any], firing_rates: Tensor | None) -> Path:
    architecture, parameters, further = _in_saelens(sae)
    with atomic_write(folder / CONFIG) as config_file, atomic_write(folder / WEIGHTS) as weights_file:
        with safetensors_written(weights_file):
            save_file(parameters, weights_file)
        sizes = {"d_in": sae.d_in, "d_sae": sae.d_sae, "apply_b_dec_to_input": sae.apply_b_dec_to_input}
        write_config(config_file, {"architecture": architecture, **sizes, **further}, metadata, sha256(weights_file))
        if firing_rates is None:
            (folder / SPARSITY).unlink(missing_ok=True)  # of the SAE that was here before
        else:
            with atomic_write(folder / SPARSITY) as sparsity_file, safetensors_written(sparsity_file):
                save_file({"sparsity": (firing_rates.double() + _EPSILON).log10().float().contiguous()}, sparsity_file)
    write_checksums(folder, (CONFIG, WEIGHTS))
    return folder


def write_config(file: Path, fields: Mapping[str, object], metadata: Mapping[str, object], checksum: str) -> None:
    """Writes the cfg.json of SAELens 6.

    Args:
        file: where to write.
        fields: architecture, sizes and what else the architecture has.
        metadata: entries for `metadata`.
        checksum: the SHA-256 of the file of the weights.
    """
    config = {
        **fields,
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        # TransformerLens gives the heads' outputs apart, which SAELens then puts side by side.
        "reshape_activations": "hook_z" if str(metadata.get("hook_name")).endswith("hook_z") else "none",
        "metadata": {"sae_lens_version": _SAELENS_VERSION, **metadata, CHECKSUM: checksum},
    }
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def _in_saelens(sae: SAE) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Returns SAELens's architecture, its parameters, and further fields of cfg.json."""
    if isinstance(sae, ThresholdSAE):
        return "jumprelu", _tensors(sae, PARAMETERS), {}
    common = _tensors(sae, ("W_enc", "b_enc", "W_dec", "b_dec"))
    if isinstance(sae.activation, Relu):
        return "standard", common, {}
    if isinstance(sae.activation, TopK):
        return "topk", common, {"k": int(sae.activation.k), "rescale_acts_by_decoder_norm": False}
    if isinstance(sae.activation, Gated):
        gate = {"b_gate": common.pop("b_enc")} | _tensors(sae.activation, ("r_mag", "b_mag"))
        return "gated", common | gate, {}
    return "jumprelu", _tensors(sae.one_step(), PARAMETERS), {}  # BatchTopK, as SAELens saves its own


def _firing(rates: Tensor) -> dict[str, Any]:
    return {"l0": float(rates.double().sum()), "num_dead_features": int((rates == 0).sum())}


def _save_gemma_scope(sae: ThresholdSAE, folder: Path) -> Path:
    parameters = _tensors(sae, PARAMETERS)
    if sae.apply_b_dec_to_input:
        shift = parameters["b_dec"].double() @ parameters["W_enc"].double()
        parameters["b_enc"] = (parameters["b_enc"].double() - shift).float()
    file = folder / gemma_scope.ARCHIVE
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        arrays: dict[str, Any] = {name: value.numpy() for name, value in parameters.items()}
        np.savez(stream, **arrays)
    return file


def _save_single(sae: ThresholdSAE, place: Path, metadata: dict[str, Any]) -> Path:
    file = place if place.suffix == ".safetensors" else place / _SINGLE_FILE
    stated = {"apply_b_dec_to_input": sae.apply_b_dec_to_input, "metadata": metadata}
    with atomic_write(file) as temporary, safetensors_written(temporary):
        save_file(_tensors(sae, PARAMETERS), temporary, {safetensors_files.OWN: json.dumps(stated)})
    return file


def _threshold_sae(sae: SAE, format: str) -> ThresholdSAE:
    """Returns the TSAE of the same function; raises ValueError for TopK, which has none."""
    if isinstance(sae, ThresholdSAE):
        return sae
    if isinstance(sae.activation, TopK):
        raise ValueError(
            f"format={format!r} holds thresholds, and this SAE keeps its k largest latents: use 'saelens'."
        )
    return sae.one_step()


def _tensors(module: torch.nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    return {name: getattr(module, name).detach().float().cpu().contiguous() for name in names}
