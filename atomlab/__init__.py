"""atomlab: find the atoms of language models, and prove what you found."""

from atomlab.sae import ThresholdSAE, load_sae, save_sae

__all__ = ["ThresholdSAE", "load_sae", "save_sae"]
