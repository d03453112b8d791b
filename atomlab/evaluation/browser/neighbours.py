"""The atoms nearest to each atom in the metric S, and a small map of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.theory import AtomicInnerProduct, unit_rows


@torch.no_grad()
def nearest_atoms(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct, k: int, block: int = 2048
) -> tuple[Float[Tensor, "d_sae k"], Int[Tensor, "d_sae k"]]:
    """Finds the atoms of largest |cos_S| with each atom.

    Args:
        dictionary: atoms as rows, (d_sae, d_in).
        metric: S.
        k: number of other atoms; all are taken if there are fewer.
        block: number of atoms whose cosines with all others are held at a time.

    Returns:
        Their signed cosines, largest magnitude first, and their numbers, (d_sae, k) each. Exact up to rounding. Cost:
        2·d_in·d_sae² FLOPs, and 8·block·d_sae bytes.
    """
    unit = unit_rows(dictionary, metric)
    values, numbers = [], []
    for start in range(0, len(unit), block):
        gram = unit[start : start + block] @ unit.T
        magnitude = gram.abs()
        magnitude.diagonal(start).fill_(-1)
        best = magnitude.topk(min(k, len(unit) - 1), dim=1).indices
        values.append(gram.gather(1, best))
        numbers.append(best)
    return torch.cat(values), torch.cat(numbers)


@torch.no_grad()
def neighbour_maps(
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct,
    neighbours: Int[Tensor, "d_sae k"],
    block: int = 512,
) -> tuple[Float[Tensor, "d_sae k_and_one 2"], Float[Tensor, " d_sae"]]:
    """Draws each atom and its neighbours on a plane: the first two principal components of these k + 1 unit atoms.

    Args:
        dictionary: atoms as rows, (d_sae, d_in).
        metric: S; atoms are scaled to unit S-norm.
        neighbours: numbers of the neighbours of each atom, (d_sae, k).
        block: number of atoms whose maps are computed at a time.

    Returns:
        Coordinates of each atom and then of its neighbours, (d_sae, k + 1, 2), with their mean at 0; and the share of their
        variance that the plane shows, (d_sae,). The signs of the axes mean nothing. Cost: 2·d_sae·(k + 1)²·d_in FLOPs.
    """
    unit = unit_rows(dictionary, metric)
    places, shares = [], []
    for start in range(0, len(unit), block):
        own = torch.arange(start, min(start + block, len(unit)))
        points = unit[torch.cat([own[:, None], neighbours[own]], 1)].double()
        points -= points.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(points @ points.mT)
        values = values.clamp(min=0)
        places.append((vectors[:, :, -2:] * values[:, None, -2:].sqrt()).flip(2))
        shares.append(values[:, -2:].sum(1) / values.sum(1).clamp(min=1e-12))
    return torch.cat(places).float(), torch.cat(shares).float()
