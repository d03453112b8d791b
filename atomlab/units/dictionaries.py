"""Control dictionaries (theory.md 9): random atoms, training vectors and k-means centroids.

A TSAE has found structure only where it does better than these at its own size, training data and L0. Random atoms know
nothing of the data but the metric S, training vectors are pure memory, and centroids are the classical clustering.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory import AtomicInnerProduct, random_dictionary, unit_rows
from atomlab.units.unit import Unit


def data_nearest(dictionary: Float[Tensor, "d_sae d_in"], mean: Tensor, metric: AtomicInnerProduct) -> Unit:
    """Codes each activation by its nearest atom alone.

    With y = x − mean, the atom is j = argmax_j cos_S(y, d_j) and its value is the coefficient of the projection,
    ⟨y, d_j⟩_S / ‖d_j‖²_S, or 0 where that is negative. If the atoms are training vectors, each of them is reconstructed
    up to rounding: R² = 1 on the training data at L0 = 1, which is memory and not structure.

    Args:
        dictionary: centred atoms as rows, shape `(d_sae, d_in)`; none may be zero.
        mean: mean of the training vectors, shape `(d_in,)`.
        metric: S.

    Returns:
        The unit "data, nearest", with dense codes that are never negative.

    Cost: 2·samples·d_in·d_sae FLOPs and a `(samples, d_sae)` matrix for the codes of that many samples.
    """
    unit, norms = unit_rows(dictionary, metric), metric.norm(dictionary)

    @no_autocast()
    def encode(x: Tensor) -> Tensor:
        scores = metric.whiten(x - mean) @ unit.T
        best = scores.max(1, keepdim=True)
        return torch.zeros_like(scores).scatter_(1, best.indices, best.values.clamp(min=0) / norms[best.indices])

    return Unit("data, nearest", dictionary, mean, encode, signed=False, coder="nearest")


@no_autocast()
def random_atoms(
    d_sae: int, d_in: int, metric: AtomicInnerProduct, generator: torch.Generator
) -> Float[Tensor, "d_sae d_in"]:
    """Draws independent atoms uniformly on the S-unit sphere.

    Args:
        d_sae: number of atoms.
        d_in: width of the atoms.
        metric: S.
        generator: source of randomness, on the CPU.

    Returns:
        Atoms as rows, shape `(d_sae, d_in)`, float32.
    """
    return random_dictionary(d_sae, d_in, generator) @ metric.unwhitening.float()


def data_dictionary(
    train: Float[Tensor, "samples d_in"], mean: Tensor, d_sae: int, generator: torch.Generator
) -> Float[Tensor, "n d_in"]:
    """Takes distinct training vectors, centred, as atoms.

    Args:
        train: training vectors, shape `(samples, d_in)`, on the CPU. Rows that agree byte for byte count once.
        mean: what is subtracted from each, shape `(d_in,)`.
        d_sae: largest number of atoms.
        generator: decides which vectors are taken where more than `d_sae` are distinct, and their order.

    Returns:
        All distinct vectors or a random `d_sae` of them, shape `(n, d_in)`, n ≤ d_sae.

    Cost: one copy of the data and one sort of its rows as byte strings.
    """
    order = torch.randperm(len(train), generator=generator)
    rows = np.ascontiguousarray(train[order].numpy())
    first = np.unique(rows.view(f"V{rows.strides[0]}").squeeze(1), return_index=True)[1]
    return train[order[torch.from_numpy(np.sort(first)[:d_sae])]] - mean


@no_autocast()
def k_means(
    train: Float[Tensor, "samples d_in"], mean: Tensor, d_sae: int, metric: AtomicInnerProduct, seed: int
) -> Float[Tensor, "n d_in"]:
    """Finds the centroids of the training vectors in the metric S by minibatch k-means.

    The centred vectors are whitened, so that distances are S-distances; the centroids are mapped back to raw
    coordinates.

    Args:
        train: training vectors, shape `(samples, d_in)`, on the CPU.
        mean: what is subtracted from each, shape `(d_in,)`.
        d_sae: number of centroids; no more than there are samples.
        metric: S.
        seed: seed of scikit-learn's `MiniBatchKMeans`.

    Returns:
        Centroids as rows, shape `(n, d_in)`, n ≤ min(d_sae, samples); one that is exactly zero has no direction and is
        left out.

    Cost: up to 20 passes of 2·samples·d_in·d_sae FLOPs, and a whitened copy of the data.
    """
    white = metric.whiten(train - mean)
    centres = centroids(white, d_sae, seed)
    return centres[centres.norm(dim=1) > 0] @ metric.unwhitening.to(white)


def centroids(x: Float[Tensor, "samples d_in"], count: int, seed: int, passes: int = 20) -> Float[Tensor, "n d_in"]:
    """Finds the centroids of vectors in the Euclidean metric by scikit-learn's minibatch k-means.

    Args:
        x: vectors, shape `(samples, d_in)`, on the CPU.
        count: number of centroids; as many as there are vectors where these are fewer.
        seed: seed of `MiniBatchKMeans`.
        passes: passes over the vectors, at most.

    Returns:
        Centroids as rows, shape `(n, d_in)`, in the dtype of x.

    Cost: up to `passes` passes of 2·samples·d_in·n FLOPs. Before these, k-means++ on 3·n random vectors with one trial a
    centroid, 6·n²·d_in FLOPs: more trials and vectors took three times as long and ended no better. It is given float64,
    since scikit-learn would convert float32 vectors anew for each centroid, which takes 2.6 times as long.
    """
    n, data = min(count, len(x)), x.numpy()
    drawn = np.random.default_rng(seed).permutation(len(data))[: 3 * n]
    starts: Any = kmeans_plusplus(data[drawn].astype(np.float64), n, n_local_trials=1, random_state=seed)[0]
    model = MiniBatchKMeans(
        n, init=starts.astype(data.dtype), batch_size=4096, max_iter=passes, random_state=seed, reassignment_ratio=0.0
    )
    return torch.from_numpy(model.fit(data).cluster_centers_).to(x)
