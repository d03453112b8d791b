"""The format of Gemma Scope: `params.npz`."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atomlab.files import regular
from atomlab.interop.weights import sae_of_weights
from atomlab.sae import ThresholdSAE

_PARAMETERS = {"w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}
_FOREIGN = (BadZipFile, ValueError, TypeError, EOFError, LookupError, OSError, RuntimeError, MemoryError, zlib.error)


def load_gemma_scope(file: Path) -> ThresholdSAE:
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
