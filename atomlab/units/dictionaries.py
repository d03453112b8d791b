"""Control dictionaries (theory.md 9): random atoms, training vectors and k-means centroids.

A TSAE has found structure only where it does better than these at its own size, training data and L0. Random atoms know
nothing of the data but the metric S, training vectors are pure memory, and centroids are the classical clustering.
"""

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
    """Draws independent atoms uniformly on the S-unit sphere, coded by orthogonal matching pursuit (OMP).

    Args:
        d_sae: number of atoms.
        mean: mean of the training vectors, shape `(d_in,)`. Codes are of x − mean.
        k: K, number of atoms in a code.
        metric: S.
        generator: source of randomness, on the CPU.

    Returns:
        The unit "random + OMP".
    """
    dictionary = random_dictionary(d_sae, len(mean), generator) @ metric.unwhitening.float()
    return with_pursuit("random + OMP", dictionary, mean, k, metric)


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

    return Unit("data, nearest", dictionary, mean, encode, signed=False)


def with_pursuit(name: str, dictionary: Tensor, mean: Tensor, k: int, metric: AtomicInnerProduct) -> Unit:
    """Codes x − mean on a given dictionary by orthogonal matching pursuit in the S-norm.

    Pursuit usually finds better codes of K atoms than a one-step encoder, so comparing it with a TSAE favours the control.

    Args:
        name: name of the row in tables and figures.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        mean: mean of the training vectors, shape `(d_in,)`.
        k: K, number of atoms in a code.
        metric: S.

    Returns:
        A unit with dense, signed codes of at most K atoms. The cost of a code is that of
        `atomlab.theory.orthogonal_matching_pursuit`.
    """

    def encode(x: Tensor) -> Tensor:
        return orthogonal_matching_pursuit(x - mean, dictionary, k, metric)

    return Unit(name, dictionary, mean, encode, signed=True)


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

    Cost: up to `passes` passes of 2·samples·d_in·n FLOPs, after k-means++ on three minibatches, whose cost grows with n².
    """
    model = MiniBatchKMeans(
        min(count, len(x)), batch_size=4096, n_init="auto", max_iter=passes, random_state=seed, reassignment_ratio=0.0
    )
    return torch.from_numpy(model.fit(x.numpy()).cluster_centers_).to(x)
