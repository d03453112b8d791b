"""SAEs that others trained and released, in whichever format they lie at a path."""

import logging
from pathlib import Path

import torch

from atomlab.interop.gemma_scope import load_gemma_scope
from atomlab.interop.saelens import load_sae
from atomlab.sae import ThresholdSAE

_log = logging.getLogger(__name__)


def load_released(path: Path) -> ThresholdSAE:
    """An imported SAE: a SAELens folder (`cfg.json`, `sae_weights.safetensors`), or Gemma Scope's `params.npz` (or folder).

    Latents whose decoder row is exactly zero have no atom and decode to nothing: they are left out, and a warning
    counts them.

    Raises:
        FileNotFoundError: nothing to read at `path`.
        ValueError: an SAE of another kind, one that does not read raw activations, a damaged file, or no two atoms.
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
def _with_latents(sae: ThresholdSAE, kept: torch.Tensor) -> ThresholdSAE:
    smaller = ThresholdSAE(sae.d_in, int(kept.sum()), apply_b_dec_to_input=sae.apply_b_dec_to_input)
    rows = {name: getattr(sae, name)[kept] for name in ("W_dec", "b_enc", "threshold")}
    smaller.load_state_dict({"W_enc": sae.W_enc[:, kept], "b_dec": sae.b_dec, **rows})
    return smaller
