"""SAEs that others trained and released, as units."""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atomlab.sae import ThresholdSAE, load_sae
from atomlab.units.unit import Unit, atoms

_PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


def features(path: Path, d_in: int, name: str = "features") -> Unit:
    """An imported SAE: a SAELens folder (`cfg.json`, `sae_weights.safetensors`), or Gemma Scope's `params.npz` (or folder).

    Args:
        path: folder or file.
        d_in: width of the activations that it is measured on.
        name: of the row.

    Raises:
        FileNotFoundError: nothing to read at `path`.
        ValueError: an SAE of another kind or width, one that wants its inputs normalised, or a damaged file.
    """
    archive = path if path.suffix == ".npz" else path / "params.npz"
    sae = _gemma_scope(archive) if archive.exists() else _saelens(path)
    if sae.d_in != d_in:
        raise ValueError(
            f"The SAE {path.name} reads activations of width {sae.d_in} and this site has {d_in}: "
            f"choose the model, site and layer that it was trained on."
        )
    return atoms(sae, name)


def _saelens(folder: Path) -> ThresholdSAE:
    sae = load_sae(folder)
    config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    for key in ("normalize_activations", "reshape_activations"):
        if config.get(key, "none") != "none":
            raise ValueError(
                f"{folder.name}/cfg.json has {key}={config[key]}, and raw activations are measured here: "
                f"fold the normalisation into the weights and set it to 'none'."
            )
    return sae


def _gemma_scope(file: Path) -> ThresholdSAE:
    """W_enc (d_in, d_sae), W_dec (d_sae, d_in), b_enc, b_dec, threshold; b_dec is not subtracted from the input."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{file} is no readable .npz archive ({error}): download it again.") from error
    found = {name: arrays.get(name, arrays.get(name.replace("W_", "w_"))) for name in _PARAMETERS}
    if missing := [name for name, array in found.items() if array is None]:
        raise ValueError(f"{file} has no {', '.join(missing)}: expected Gemma Scope's {', '.join(_PARAMETERS)}.")
    weights = {name: torch.from_numpy(array).float() for name, array in found.items() if array is not None}
    d_in, d_sae = weights["W_enc"].shape
    sae = ThresholdSAE(d_in, d_sae)
    for name, expected in sae.state_dict().items():
        if weights[name].shape != expected.shape or not torch.isfinite(weights[name]).all():
            raise ValueError(f"{file}: {name} should be finite of shape {tuple(expected.shape)}.")
    sae.load_state_dict(weights)
    return sae
