"""The three kernels of the sparse step from stock torch operators: for any device, deterministic on the CPU.

`select` is the only dense product; `bag_sum` and `sampled_dot` cost 2·d_in FLOPs an entry.
"""

import warnings

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from atomlab.autocast import no_autocast
from atomlab.sae.code import Entries, offsets

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


def bag_sum(
    table: Float[Tensor, "n d_in"],
    index: Int64[Tensor, " entries"],
    bags: Int64[Tensor, " entries"],
    weights: Float[Tensor, " entries"],
    count: int,
) -> Float[Tensor, "count d_in"]:
    """Row b is Σ weights_e·table[index_e] over the entries with bags_e = b, in their order; `bags` ascend. Zero
    weights cost nothing."""
    used = weights.nonzero().squeeze(1)
    return embedding_bag(
        index.index_select(0, used),
        table,
        offsets(bags.index_select(0, used), count),
        mode="sum",
        per_sample_weights=weights.index_select(0, used),
        include_last_offset=True,
    )


def sampled_dot(
    x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], entries: Entries
) -> Float[Tensor, " entries"]:
    """x[row]·atoms[column] of each entry: one fixed summation order whatever the other entries are."""
    pattern = csr(
        offsets(entries.columns, entries.d_sae), entries.rows, x.new_zeros(len(entries.rows)), (len(atoms), len(x))
    )
    return torch.sparse.sampled_addmm(pattern, atoms, x.T, beta=0.0).values()


def csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A torch CSR tensor without torch's notice that CSR is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)
