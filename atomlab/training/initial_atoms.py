"""Where the atoms of a training start: centroids of its data, vectors of it, or the atoms of another training."""

import sys
import time
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae import InputTransform
from atomlab.theory import random_dictionary
from atomlab.training.recipe import InitialAtoms
from atomlab.units.dictionaries import centroids

_BLOCK = 1024  # candidates that are looked at together


@torch.no_grad()
@no_autocast()
def initial_atoms(
    x: Float[Tensor, "samples d_in"],
    d_sae: int,
    options: InitialAtoms,
    generator: torch.Generator,
    first: Float[Tensor, "n d_in"] | None = None,
) -> Float[Tensor, "d_sae d_in"]:
    """Chooses initial atoms: the directions of centroids or vectors, no two nearer to each other than a bound.

    Candidates are taken in turn, and one whose |cos| with an atom that was taken before is above `options.bound` is left
    out: first those that are given or the centroids (for `kmeans`), then the vectors in random order, then random
    directions. Random directions fill what is left, whatever their cosines.

    Args:
        x: training vectors in the coordinates of the training, shape `(samples, d_in)`, on the CPU.
        d_sae: number of atoms.
        options: `kmeans` or `data`, and the bound.
        generator: source of randomness, on the CPU.
        first: candidates that come before all others, in their order, shape `(n, d_in)`.

    Returns:
        Atoms of unit norm as rows, shape `(d_sae, d_in)`, in the dtype of x.

    Cost: for `kmeans` up to `options.passes` passes of 2·samples·d_in·d_sae FLOPs, of which a line on standard error
    says how long they took; then 2·d_in·d_sae FLOPs for each candidate.
    """
    order, atoms = torch.randperm(len(x), generator=generator), x.new_zeros(0, x.shape[1])
    if first is not None:
        atoms = _take(atoms, first, torch.arange(len(first)), d_sae, options.bound)
    if options.source == "kmeans" and len(x) > 1:
        seed = int(torch.randint(2**31, (), generator=generator))
        centres = _timed_centroids(x, d_sae, options.passes, seed)
        atoms = _take(atoms, centres, torch.arange(len(centres)), d_sae, options.bound)
    atoms = _take(atoms, x, order, d_sae, options.bound)
    drawn = random_dictionary(d_sae - len(atoms), x.shape[1], generator).to(x)
    return torch.cat([atoms, drawn])


def _timed_centroids(x: Tensor, count: int, passes: int, seed: int) -> Tensor:
    """Finds centroids, and says on standard error how long it took."""
    start = time.perf_counter()
    found = centroids(x, count, seed, passes)
    seconds = time.perf_counter() - start
    sys.stderr.write(f"atomlab: k-means of {len(x):,} vectors, {len(found):,} initial atoms, took {seconds:.0f} s\n")
    return found


def _take(atoms: Tensor, candidates: Tensor, order: Tensor, wanted: int, bound: float) -> Tensor:
    """Appends the directions of candidates, in an order, until there are `wanted` atoms; leaves out those beyond the
    bound.
    """
    for numbers in order.split(_BLOCK):
        if len(atoms) == wanted:
            return atoms
        some = candidates[numbers]
        norms = some.norm(dim=1)
        block = some[norms > 0] / norms[norms > 0, None]
        block = block[(block @ atoms.T).abs().amax(1) <= bound] if len(atoms) else block
        near = ((block @ block.T).abs() > bound).tril(-1)
        kept = torch.zeros(len(block), dtype=torch.bool)
        for i, row in enumerate(near):
            kept[i] = not bool((row & kept).any())
        atoms = torch.cat([atoms, block[kept][: wanted - len(atoms)]])
    return atoms


@torch.no_grad()
@no_autocast()
def common_atoms(dictionaries: Sequence[Float[Tensor, "_ d_in"]], agreement: float) -> Float[Tensor, "n d_in"]:
    """Finds the atoms that more than half of several dictionaries have, whatever their order and sign.

    An atom is in another dictionary if the largest |cos| with one of its atoms is at least `agreement`; it is always in its
    own. For each atom of any dictionary that is in more than half of them, the mean of it and of its nearest atoms in those
    dictionaries is taken, signs aligned. Each common atom is thus found from each of its dictionaries; of means whose |cos|
    is above `agreement` one is kept.

    Args:
        dictionaries: atoms of unit norm as rows, each of shape `(d_sae, d_in)`, in coordinates in which the metric is
            Euclidean.
        agreement: from 0 to 1.

    Returns:
        Atoms of unit norm, shape `(n, d_in)`, those that are in the most dictionaries first; n may be 0.

    Cost: 2·d_in·(Σ d_sae)² FLOPs, and a `(d_sae, d_sae)` matrix for two dictionaries at a time.
    """
    found: list[Tensor] = []
    counts: list[Tensor] = []
    for number, atoms in enumerate(dictionaries):
        total, count = atoms.clone(), torch.ones(len(atoms), dtype=torch.int64, device=atoms.device)
        for other, partners in enumerate(dictionaries):
            if other == number:
                continue
            cosines = atoms @ partners.T
            nearest = cosines.abs().argmax(1)
            cosine = cosines.gather(1, nearest[:, None])
            has = cosine.abs() >= agreement
            total += has * cosine.sign() * partners[nearest]
            count += has[:, 0]
        common = 2 * count > len(dictionaries)
        found.append(torch.nn.functional.normalize(total[common], dim=1))
        counts.append(count[common])
    order = torch.cat(counts).argsort(descending=True, stable=True)
    candidates = torch.cat(found)
    return _take(candidates[:0], candidates, order, len(candidates), agreement)


@torch.no_grad()
@no_autocast()
def in_coordinates(atoms: Float[Tensor, "d_sae d_in"], transform: InputTransform) -> Float[Tensor, "d_sae d_in"]:
    """Maps atoms of raw activations to unit atoms in the coordinates of a training: d M, normalised.

    Args:
        atoms: shape `(d_sae, d_in)`, none of them zero.
        transform: from raw activations to the coordinates of the training.

    Returns:
        Atoms of unit norm, shape `(d_sae, d_in)`.
    """
    return torch.nn.functional.normalize(atoms @ transform.matrix, dim=1)
