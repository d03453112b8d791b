"""The kernels of the step on entries in Triton, for CUDA devices: an implementation of `Kernels`.

Results repeat bit for bit: slots are given out atomically, but entries are sorted before use, and every sum runs in one
fixed order.
"""

from dataclasses import dataclass
from typing import final, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.autocast import autocast_dtype
from atomlab.sae.sparse_code import Entries, offsets

_BLOCK_E, _BLOCK_D = 16, 256  # entries and coordinates that a program of a sum reads at once


@final
@dataclass(frozen=True)
class TritonKernels:
    """Encoder product, threshold and compaction in one kernel; sums over entries in two more.

    Under autocast all matrices are read in its dtype and summed in float32; float32 products follow torch's
    float32_matmul_precision, as the dense ones do.

    Args:
        room: entries expected. More of them cost a second encoder product; none is lost.
        tile: samples, latents and coordinates of a tile of the product: powers of two, 16 at least.
        group: blocks of samples whose products run side by side.
    """

    room: int = 1 << 20
    tile: tuple[int, int, int] = (128, 128, 64)
    group: int = 8

    def operand(self, v: Tensor) -> Tensor:
        return v.to(autocast_dtype(v.device) or v.dtype).contiguous()

    @torch.no_grad()
    def find(
        self,
        x: Float[Tensor, "batch d_in"],
        atoms: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_sae"],
        threshold: Float[Tensor, " d_sae"],
        bandwidth: float,
    ) -> tuple[Float[Tensor, " entries"], Entries]:
        """z of all entries with z > θ or |z − θ| < ε/2, in the bias's dtype, and where they are; 2·batch·d_in·d_sae
        FLOPs, memory of the entries only."""
        batch, d_sae = len(x), len(atoms)
        keys, z, found = self._select(x, atoms, bias, threshold, bandwidth, min(self.room, batch * d_sae))
        if found > len(keys):
            keys, z, found = self._select(x, atoms, bias, threshold, bandwidth, found)
        keys, order = keys[:found].sort()
        columns = keys.div(max(1, batch), rounding_mode="floor")
        return z[:found].index_select(0, order), Entries(keys - columns * batch, columns, batch, d_sae)

    def _select(
        self, x: Tensor, atoms: Tensor, bias: Tensor, threshold: Tensor, bandwidth: float, capacity: int
    ) -> tuple[Tensor, Tensor, int]:
        """Keys and z of the first `capacity` entries found, and how many there are."""
        (batch, width), d_sae = x.shape, len(atoms)
        keys = torch.empty(capacity, dtype=torch.int64, device=x.device)
        z = torch.empty(capacity, dtype=bias.dtype, device=x.device)
        count = torch.zeros(1, dtype=torch.int64, device=x.device)
        rows, latents, coordinates = self.tile
        programs = triton.cdiv(batch, rows) * triton.cdiv(d_sae, latents)
        if programs:
            # a kernel's scalars are float32: a window wider by 2⁻²⁰ loses nothing, and what lies beyond has no gradient
            half_window = bandwidth / 2 * (1 + 2.0**-20)
            precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
            select_kernel[(programs,)](
                x, atoms, bias, threshold, keys, z, count, batch, d_sae, width, capacity, half_window,
                PRECISION=precision, OPERAND=_factors(x), ACC=_sums(x), BLOCK_B=rows, BLOCK_S=latents, BLOCK_D=coordinates,
                GROUP=self.group,
                num_warps=8, num_stages=3, enable_fp_fusion=True,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        return keys, z, int(count)

    def bag_sum(
        self,
        table: Float[Tensor, "n d_in"],
        index: Int64[Tensor, " entries"],
        bags: Int64[Tensor, " entries"],
        weights: Float[Tensor, " entries"],
        count: int,
    ) -> Float[Tensor, "count d_in"]:
        """Row b is Σ weights_e·table[index_e] over the entries with bags_e = b, in the weights' dtype; `bags` ascend."""
        width = table.shape[1]
        out = torch.empty(count, width, dtype=weights.dtype, device=table.device)
        if count:
            grid = (count, triton.cdiv(width, _BLOCK_D))
            pointers = offsets(bags, count)
            bag_sum_kernel[grid](
                table, index, weights.contiguous(), pointers, out, width,
                ACC=_sums(table), BLOCK_E=_BLOCK_E, BLOCK_D=_BLOCK_D,
                enable_fp_fusion=True,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        return out

    def sampled_dot(
        self, x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], entries: Entries
    ) -> Float[Tensor, " entries"]:
        """x[row]·atoms[column] of each entry, in the dtype of the sums."""
        number, width = len(entries.rows), x.shape[1]
        out = torch.empty(number, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        if number:
            grid = (triton.cdiv(number, _BLOCK_E),)
            sampled_dot_kernel[grid](
                x, atoms, entries.rows, entries.columns, out, number, width,
                ACC=_sums(x), BLOCK_E=_BLOCK_E, BLOCK_D=_BLOCK_D,
                enable_fp_fusion=True,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        return out


def _sums(operand: Tensor) -> tl.dtype:
    return tl.float64 if operand.dtype == torch.float64 else tl.float32


def _factors(operand: Tensor) -> tl.dtype:
    """The operand's own dtype, but float32 for bfloat16 in the interpreter, which would multiply its bit patterns
    (triton-lang/triton#11584): the products are exact in float32, so nothing changes."""
    low = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}.get(operand.dtype, _sums(operand))
    return low if operand.is_cuda else _sums(operand)


@triton.jit
@no_type_check
def select_kernel(
    x, atoms, bias, threshold, keys, values, count, batch, d_sae, width, capacity, half_window,
    PRECISION: tl.constexpr, OPERAND: tl.constexpr, ACC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """z = x·w_j + b_j of a (BLOCK_B, BLOCK_S) tile; where z > θ or |z − θ| < half_window, key = column·batch + row and
    z go to the next free slots. `count` is the number found, also of those beyond `capacity`, which are not written."""
    # neighbouring programs share their operands in the L2 cache: GROUP blocks of rows pass over the latents together
    row_blocks, column_blocks = tl.cdiv(batch, BLOCK_B), tl.cdiv(d_sae, BLOCK_S)
    group, place = tl.program_id(0) // (GROUP * column_blocks), tl.program_id(0) % (GROUP * column_blocks)
    size = min(row_blocks - group * GROUP, GROUP)
    first_row = (group * GROUP + place % size).to(tl.int64) * BLOCK_B
    first_column = (place // size).to(tl.int64) * BLOCK_S
    # within a tile 32 bits are enough, which spares registers
    rows, columns = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_S)
    row_in, column_in = rows < batch - first_row, columns < d_sae - first_column
    x += first_row * width
    atoms += first_column * width
    z = tl.zeros((BLOCK_B, BLOCK_S), dtype=ACC)
    for first in range(0, width, BLOCK_D):
        inner = first + tl.arange(0, BLOCK_D)
        inside = inner < width
        a = tl.load(x + (rows[:, None] * width + inner[None, :]), row_in[:, None] & inside[None, :], 0.0)
        b = tl.load(atoms + (columns[None, :] * width + inner[:, None]), column_in[None, :] & inside[:, None], 0.0)
        z = tl.dot(a.to(OPERAND), b.to(OPERAND), z, input_precision=PRECISION, out_dtype=ACC)
    b = tl.load(bias + first_column + columns, column_in, 0.0).to(ACC)
    theta = tl.load(threshold + first_column + columns, column_in, 0.0).to(ACC)
    z = (z + b[None, :]).to(values.dtype.element_ty).to(ACC)  # decided on the very number that is stored
    beyond = z - theta[None, :]
    kept = ((beyond > 0) | (tl.abs(beyond) < half_window)) & row_in[:, None] & column_in[None, :]
    of_row = tl.sum(kept.to(tl.int32), 1)
    total = tl.sum(of_row, 0)
    if total > 0:
        # which slots a program gets depends on the order of arrival; the caller sorts by key
        slot = tl.atomic_add(count, total.to(tl.int64))
        free = tl.minimum(tl.maximum(capacity - slot, 0), BLOCK_B * BLOCK_S).to(tl.int32)
        within = (tl.cumsum(of_row, 0) - of_row)[:, None] + (tl.cumsum(kept.to(tl.int32), 1) - 1)
        kept &= within < free
        first_key = first_column * batch + first_row
        tl.store(keys + slot + within, first_key + (columns[None, :].to(tl.int64) * batch + rows[:, None]), kept)
        tl.store(values + slot + within, z, kept)


@triton.jit
@no_type_check
def bag_sum_kernel(
    table, index, weights, pointers, out, width, ACC: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr
):
    """out_b = Σ weights_e·table[index_e] over e from pointers_b to pointers_{b+1}, in one fixed order; one program a bag
    and BLOCK_D coordinates. Rows of weight 0 are not read."""
    bag = tl.program_id(0).to(tl.int64)
    inner = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = inner < width
    first, last = tl.load(pointers + bag), tl.load(pointers + bag + 1)
    total = tl.zeros((BLOCK_D,), dtype=ACC)
    for start in range(first, last, BLOCK_E):
        entries = start + tl.arange(0, BLOCK_E)
        weight = tl.load(weights + entries, entries < last, 0.0)
        rows = tl.load(index + entries, entries < last, 0)
        read = (weight != 0)[:, None] & inside[None, :]
        parts = tl.load(table + rows[:, None] * width + inner[None, :], read, 0.0)
        total += tl.sum(weight[:, None].to(ACC) * parts.to(ACC), 0)
    tl.store(out + bag * width + inner, total, inside)


@triton.jit
@no_type_check
def sampled_dot_kernel(
    x, atoms, rows, columns, out, entries, width, ACC: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr
):
    """out_e = x[row_e]·atoms[column_e]; BLOCK_E entries a program, neighbours in column order share their atom."""
    numbers = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    valid = numbers < entries
    row, column = tl.load(rows + numbers, valid, 0), tl.load(columns + numbers, valid, 0)
    total = tl.zeros((BLOCK_E,), dtype=ACC)
    for first in range(0, width, BLOCK_D):
        inner = first + tl.arange(0, BLOCK_D)
        read = valid[:, None] & (inner < width)[None, :]
        a = tl.load(x + row[:, None] * width + inner[None, :], read, 0.0)
        b = tl.load(atoms + column[:, None] * width + inner[None, :], read, 0.0)
        total += tl.sum(a.to(ACC) * b.to(ACC), 1)
    tl.store(out + numbers, total, valid)
