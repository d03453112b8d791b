"""The dense product of which only the entries above a floor are kept, in tiles, from stock torch operators."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae.sparse_code import Entries

_TILE = {"cpu": 1 << 23}  # products of a tile: one that stays near the cache between the product and the comparison


_TILE_ELSEWHERE = 1 << 27


@no_autocast()  # the operands' dtype decides, and autocast would refuse to join parts of another 16-bit one
def select(
    x: Float[Tensor, "batch width"],
    atoms: Float[Tensor, "d_sae width"],
    floor: Float[Tensor, " d_sae"],
    tile: int | None = None,
) -> tuple[Float[Tensor, " entries"], Entries]:
    """The products x·w_j that are at least floor_j, and where they are; all operands of one dtype.

    Tiled over latents, `tile` at a time (None: by the cache): memory of a tile and of the entries, never of (batch,
    d_sae).
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
    """The values in `dtype`, rounded so that rounding to nearest cannot carry anything ≥ the value below the result."""
    rounded = values.to(dtype)
    return torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))


def _sparse_nonzero(mask: Bool[Tensor, "latents rows"]) -> tuple[Tensor, Tensor]:
    """`mask.nonzero(as_tuple=True)`, eight booleans at a time: several times faster where few are set. The width is a
    multiple of 8."""
    words = mask.view(torch.int64).flatten().nonzero().squeeze(1)
    word, place = mask.view(-1, 8).index_select(0, words).nonzero(as_tuple=True)
    flat = words.index_select(0, word) * 8 + place
    latents = flat.div(mask.shape[1], rounding_mode="floor")
    return latents, flat - latents * mask.shape[1]
