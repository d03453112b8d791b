"""Controls (theory.md 9): dictionaries that remember or know nothing, at the atoms' own size, data and L0."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory import AtomicInnerProduct, orthogonal_matching_pursuit, random_dictionary, unit_rows
from atomlab.units.unit import Unit


@no_autocast()
def random_atoms(d_sae: int, mean: Tensor, k: int, metric: AtomicInnerProduct, generator: torch.Generator) -> Unit:
    """Control: independent random atoms, uniform on the S-unit sphere, with OMP codes of K atoms of x − mean."""
    dictionary = random_dictionary(d_sae, len(mean), generator) @ metric.unwhitening.float()
    return with_pursuit("random + OMP", dictionary, mean, k, metric)


def data_nearest(dictionary: Float[Tensor, "d_sae d_in"], mean: Tensor, metric: AtomicInnerProduct) -> Unit:
    """Control: training vectors as atoms, coded by the nearest one alone, argmax_j cos_S(x, d_j), with its projection
    coefficient ⟨x, d_j⟩_S / ‖d_j‖²_S (0 if negative).

    A training vector that is an atom is reconstructed exactly: R² train = 1 at L0 = 1, and this is memory.
    """
    unit, norms = unit_rows(dictionary, metric), metric.norm(dictionary)

    @no_autocast()
    def encode(x: Tensor) -> Tensor:
        scores = metric.whiten(x - mean) @ unit.T
        best = scores.max(1, keepdim=True)
        return torch.zeros_like(scores).scatter_(1, best.indices, best.values.clamp(min=0) / norms[best.indices])

    return Unit("data, nearest", dictionary, mean, encode, signed=False)


def with_pursuit(name: str, dictionary: Tensor, mean: Tensor, k: int, metric: AtomicInnerProduct) -> Unit:
    """Any dictionary, with signed OMP codes of K atoms of x − mean in the S-norm: the best codes of its size known here."""

    def encode(x: Tensor) -> Tensor:
        return orthogonal_matching_pursuit(x - mean, dictionary, k, metric)

    return Unit(name, dictionary, mean, encode, signed=True)


def data_dictionary(
    train: Float[Tensor, "samples d_in"], mean: Tensor, d_sae: int, generator: torch.Generator
) -> Float[Tensor, "n d_in"]:
    """Distinct training vectors, centred, as atoms: all, or a random d_sae of more. Cost: one sort of the rows' bytes."""
    order = torch.randperm(len(train), generator=generator)
    rows = np.ascontiguousarray(train[order].numpy())
    first = np.unique(rows.view(f"V{rows.strides[0]}").squeeze(1), return_index=True)[1]
    return train[order[torch.from_numpy(np.sort(first)[:d_sae])]] - mean


@no_autocast()
def k_means(
    train: Float[Tensor, "samples d_in"], mean: Tensor, d_sae: int, metric: AtomicInnerProduct, seed: int
) -> Float[Tensor, "n d_in"]:
    """min(d_sae, samples) centroids of the centred, whitened training vectors by MiniBatchKMeans, as raw atoms.

    Clusters are found in the metric S, where every direction counts alike. Time: a few passes of 2·samples·d_in·d_sae
    FLOPs.
    """
    white = metric.whiten(train - mean)
    count = min(d_sae, len(white))
    model = MiniBatchKMeans(
        count, batch_size=4096, n_init="auto", max_iter=20, random_state=seed, reassignment_ratio=0.0
    )
    centres = torch.from_numpy(model.fit(white.numpy()).cluster_centers_).to(white)
    return centres[centres.norm(dim=1) > 0] @ metric.unwhitening.to(white)
