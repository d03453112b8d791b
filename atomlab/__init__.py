"""atomlab: find the atoms of language models, and prove what you found."""

from atomlab.coders.encode import encode
from atomlab.interop.saelens import load_sae, save_sae
from atomlab.sae import ThresholdSAE

__all__ = ["ThresholdSAE", "encode", "load_sae", "save_sae"]
