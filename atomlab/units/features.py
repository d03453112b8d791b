"""SAEs that others trained and released."""

import logging
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atomlab.sae import ThresholdSAE, load_sae, load_weights_

_PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
_log = logging.getLogger(__name__)


def load_features(path: Path) -> ThresholdSAE:
    """An imported SAE: a SAELens folder (`cfg.json`, `sae_weights.safetensors`), or Gemma Scope's `params.npz` (or folder).

    Latents whose decoder row is exactly zero have no atom and decode to nothing: they are left out, and a warning
    counts them.

    Raises:
        FileNotFoundError: nothing to read at `path`.
        ValueError: an SAE of another kind, one that does not read raw activations, a damaged file, or no two atoms.
    """
    archive = path if path.suffix == ".npz" else path / "params.npz"
    sae = _gemma_scope(archive) if archive.exists() else load_sae(path)
    kept = sae.W_dec.detach().any(dim=1)
    zero = int((~kept).sum())
    if len(kept) - zero < 2:
        raise ValueError(f"{path} has {len(kept) - zero} decoder rows that are not zero: at least 2 atoms are needed.")
    if not zero:
        return sae
    _log.warning("%s: %d of %d latents have a zero decoder row and are left out.", path, zero, len(kept))
    return _with_latents(sae, kept)


@torch.no_grad()
def _with_latents(sae: ThresholdSAE, kept: torch.Tensor) -> ThresholdSAE:
    smaller = ThresholdSAE(sae.d_in, int(kept.sum()), apply_b_dec_to_input=sae.apply_b_dec_to_input)
    rows = {name: getattr(sae, name)[kept] for name in ("W_dec", "b_enc", "threshold")}
    smaller.load_state_dict({"W_enc": sae.W_enc[:, kept], "b_dec": sae.b_dec, **rows})
    return smaller


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
    weights = {name: torch.from_numpy(array) for name, array in found.items() if array is not None}
    if weights["W_enc"].ndim != 2:
        raise ValueError(f"{file}: W_enc should be of shape (d_in, d_sae), found {tuple(weights['W_enc'].shape)}.")
    sae = ThresholdSAE(*weights["W_enc"].shape)
    load_weights_(sae, weights, file)
    return sae
