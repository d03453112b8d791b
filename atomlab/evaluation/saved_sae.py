"""Saves a trained SAE with all that others look up beside its weights."""

from pathlib import Path

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.provenance import origin_of
from atomlab.identity import Identity
from atomlab.interop import save
from atomlab.sae import SAE
from atomlab.sae.ops import encode_csr
from atomlab.theory import firing_counts


def save_trained(sae: SAE, folder: Path, data: ActivationDataModule, identity: Identity, samples: int) -> None:
    """Writes an SAE as a SAELens folder: where it was trained (`origin_of`), and how often each latent fires.

    Args:
        sae: the SAE of raw activations.
        folder: where to write.
        data: the activations that it was trained on, set up.
        identity: the record of its run.
        samples: number of training vectors on which firings are counted; fewer if there are fewer.

    Raises:
        OSError: the folder cannot be written.

    Cost: 2·samples·d_in·d_sae FLOPs.
    """
    vectors = data.sample("train", samples)
    counts = torch.zeros(sae.d_sae, dtype=torch.int64)
    for x in vectors.split(8192):
        counts += firing_counts(encode_csr(sae, x))
    save(sae, folder, origin_of(data, identity), firing_rates=counts.double() / len(vectors))
