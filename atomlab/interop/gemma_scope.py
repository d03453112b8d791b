"""Reads the format of Gemma Scope: one NumPy archive, `params.npz`."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from atomlab.files import regular
from atomlab.interop.sae_from_tensors import sae_of_weights
from atomlab.sae import ThresholdSAE

_PARAMETERS = {"w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}
_UNREADABLE = (BadZipFile, ValueError, TypeError, EOFError, LookupError, OSError, RuntimeError, MemoryError, zlib.error)


def load_gemma_scope(file: Path) -> ThresholdSAE:
    """Reads a Gemma Scope SAE; its encoder does not subtract b_dec from the input.

    NumPy compares every array with the CRC-32 in the archive. Pickled objects are refused, so no code of the file runs.

    Args:
        file: the archive. It holds W_enc (d_in, d_sae), W_dec (d_sae, d_in), b_enc (d_sae,), b_dec (d_in,) and
            threshold (d_sae,); upper and lower case in the names do not matter.

    Returns:
        The TSAE of raw activations, in float32 on the CPU.

    Raises:
        ValueError: the archive is missing, damaged or not an archive, or its arrays are not those of a TSAE.
    """
    try:
        with regular(file).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names: list[str] = archive.files
            weights = {_PARAMETERS.get(name.lower(), name): torch.from_numpy(archive[name]) for name in names}
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"{file} is no readable .npz archive ({reason[:200]}): download it again.") from error
    return sae_of_weights(weights, file)
