"""Reads SAEs that others trained and released, whichever supported format they are in."""

import logging
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from atomlab.interop.gemma_scope import load_gemma_scope
from atomlab.interop.saelens import load_sae
from atomlab.sae import ThresholdSAE

_log = logging.getLogger(__name__)


def load_released(path: Path) -> ThresholdSAE:
    """Reads an SAE in the format of SAELens or of Gemma Scope.

    A latent whose decoder row is exactly zero has no atom and adds nothing to a reconstruction. Such latents are left
    out, and a warning says how many they are.

    Args:
        path: Gemma Scope's `.npz` file, a folder that holds it as `params.npz`, or a SAELens folder (`cfg.json` and
            `sae_weights.safetensors`).

    Returns:
        The TSAE of raw activations, in float32 on the CPU.

    Raises:
        FileNotFoundError: a file of the SAE is missing.
        ValueError: the SAE is of another kind, does not read raw activations, is damaged, or has fewer than 2 atoms
            that are not zero.
    """
    archive = path if path.suffix == ".npz" else path / "params.npz"
    sae = load_gemma_scope(archive) if archive.exists() else load_sae(path)
    kept = sae.W_dec.detach().any(dim=1)
    zero = int((~kept).sum())
    if len(kept) - zero < 2:
        raise ValueError(f"{path} has {len(kept) - zero} decoder rows that are not zero: at least 2 atoms are needed.")
    if not zero:
        return sae
    _log.warning("%s: %d of %d latents have a zero decoder row and are left out.", path, zero, len(kept))
    return _with_latents(sae, kept)


@torch.no_grad()
def _with_latents(sae: ThresholdSAE, kept: Bool[Tensor, " d_sae"]) -> ThresholdSAE:
    """Returns the TSAE of the latents that are marked, in their order."""
    smaller = ThresholdSAE(sae.d_in, int(kept.sum()), apply_b_dec_to_input=sae.apply_b_dec_to_input)
    rows = {name: getattr(sae, name)[kept] for name in ("W_dec", "b_enc", "threshold")}
    smaller.load_state_dict({"W_enc": sae.W_enc[:, kept], "b_dec": sae.b_dec, **rows})
    return smaller
