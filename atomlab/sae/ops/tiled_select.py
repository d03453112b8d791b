"""Computes a dense product in tiles and keeps only the entries above a floor, with stock torch operators."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae.sparse_code import Entries

_TILE = {"cpu": 1 << 23}  # entries of a tile, which should still be in the cache when they are compared
_TILE_ELSEWHERE = 1 << 27


@no_autocast()  # the dtype of the operands counts; autocast cannot concatenate tensors of the other 16-bit dtype
def select(
    x: Float[Tensor, "batch width"],
    atoms: Float[Tensor, "d_sae width"],
    floor: Float[Tensor, " d_sae"],
    tile: int | None = None,
) -> tuple[Float[Tensor, " entries"], Entries]:
    """Finds all products x·w_j that are at least floor_j.

    Args:
        x: shape `(batch, width)`.
        atoms: rows w_j, shape `(d_sae, width)`, in the dtype of `x`.
        floor: shape `(d_sae,)`, in the dtype of `x`.
        tile: number of latents whose products are computed at a time; None chooses it by the size of the cache.

    Returns:
        The products, shape `(entries,)`, in the dtype of `x`, and their positions.

    Cost: 2·batch·width·d_sae FLOPs; memory of a `(tile, batch)` matrix and of the entries.
    """
    batch, d_sae = len(x), len(atoms)
    if tile is None:
        tile = max(64, _TILE.get(x.device.type, _TILE_ELSEWHERE) // max(1, batch) // 64 * 64)
    size = min(tile, d_sae)
    products = x.new_empty(size, batch)
    mask = torch.zeros(size, max(8, -(-batch // 8) * 8), dtype=torch.bool, device=x.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, d_sae, size):
        latents = slice(first, min(first + size, d_sae))
        p, m = products[: latents.stop - first], mask[: latents.stop - first]
        torch.mm(atoms[latents], x.T, out=p)
        torch.ge(p, floor[latents, None], out=m[:, :batch])
        found_latents, rows = _sparse_nonzero(m)
        found.append((p.view(-1).index_select(0, found_latents * batch + rows), rows, found_latents + first))
    values, rows, columns = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, Entries(rows, columns, batch, d_sae)


def below(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts floors to a narrower dtype so that no product is lost: rounds to nearest, then one step down.

    Rounding is monotonic, so whatever is at least a value is still at least the result after it was rounded itself.

    Args:
        values: floors, in any floating dtype.
        dtype: the dtype that products are computed in.

    Returns:
        The floors in `dtype`, each below its value rounded to nearest.
    """
    rounded = values.to(dtype)
    return torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))


def _sparse_nonzero(mask: Bool[Tensor, "latents rows"]) -> tuple[Tensor, Tensor]:
    """Computes `mask.nonzero(as_tuple=True)`, several times faster where few places are set.

    Eight booleans are read as one 64-bit word, so the width has to be a multiple of 8.
    """
    words = mask.view(torch.int64).flatten().nonzero().squeeze(1)
    word, place = mask.view(-1, 8).index_select(0, words).nonzero(as_tuple=True)
    flat = words.index_select(0, word) * 8 + place
    latents = flat.div(mask.shape[1], rounding_mode="floor")
    return latents, flat - latents * mask.shape[1]
