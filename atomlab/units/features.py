"""SAEs that others trained and released."""

import logging
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atomlab.files import regular
from atomlab.sae import ThresholdSAE, load_sae, sae_of_weights

_PARAMETERS = {"w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}
_FOREIGN = (BadZipFile, ValueError, TypeError, EOFError, LookupError, OSError, RuntimeError, MemoryError, zlib.error)
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
    """W_enc (d_in, d_sae), W_dec (d_sae, d_in), b_enc, b_dec, threshold; b_dec is not subtracted from the input.

    The archive has a CRC-32 of every array, and NumPy compares them; nothing that is pickled is read.
    """
    try:
        with regular(file).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names: list[str] = archive.files
            weights = {_PARAMETERS.get(name.lower(), name): torch.from_numpy(archive[name]) for name in names}
    except _FOREIGN as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{file} is no readable .npz archive ({reason}): download it again.") from error
    return sae_of_weights(weights, file)
