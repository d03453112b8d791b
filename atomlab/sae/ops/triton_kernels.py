"""The kernels of the sparse step in Triton, for CUDA devices.

Results repeat bit for bit: programs claim slots for their entries by an atomic counter, so these arrive in any order,
but they are sorted before use, and every sum runs in one fixed order.
"""

from dataclasses import dataclass
from typing import NamedTuple, final, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.autocast import autocast_dtype
from atomlab.sae.sparse_code import Entries, offsets

_BLOCK_E, _BLOCK_D = 16, 256  # numbers of entries and of coordinates that a program of a sum reads at a time


@final
@dataclass(frozen=True)
class TritonKernels:
    """The `Kernels` in Triton: one kernel computes the product, thresholds it and lists the entries; two more sum.

    Under autocast all matrices are read in its dtype and summed in float32. Products of float32 matrices follow torch's
    `float32_matmul_precision`, as dense products do.

    Attributes:
        room: expected number of entries. If there are more, the product is computed a second time; no entry is lost.
        tile: numbers of samples, latents and coordinates in a tile of the product, each a power of two of at least 16.
        group: number of blocks of samples that are worked on side by side, so that they share latents in the L2 cache.
    """

    room: int = 1 << 20
    tile: tuple[int, int, int] = (128, 128, 64)
    group: int = 8

    def operand(self, v: Tensor) -> Tensor:
        """Returns the matrix in the dtype of autocast, if that is on, with contiguous rows."""
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
        """Finds the entries of the code that have a value or a gradient.

        Args:
            x, atoms, bias, threshold, bandwidth: as in `Kernels.find`.

        Returns:
            z, shape `(entries,)`, in the dtype of `bias`, and the positions, as in `Kernels.find`.

        Cost: 2·batch·d_in·d_sae FLOPs, twice that if there are more entries than `room`; memory of the entries.
        """
        batch, d_sae = len(x), len(atoms)
        found = self._select(x, atoms, bias, threshold, bandwidth, min(self.room, batch * d_sae))
        if found.number > len(found.keys):
            found = self._select(x, atoms, bias, threshold, bandwidth, found.number)
        keys, order = found.keys[: found.number].sort()
        columns = keys.div(max(1, batch), rounding_mode="floor")
        z = found.z[: found.number].index_select(0, order)
        return z, Entries(keys - columns * batch, columns, batch, d_sae)

    def _select(
        self, x: Tensor, atoms: Tensor, bias: Tensor, threshold: Tensor, bandwidth: float, capacity: int
    ) -> "_Found":
        """Computes the product once and lists the entries, as far as `capacity` slots reach."""
        (batch, width), d_sae = x.shape, len(atoms)
        keys = torch.empty(capacity, dtype=torch.int64, device=x.device)
        z = torch.empty(capacity, dtype=bias.dtype, device=x.device)
        count = torch.zeros(1, dtype=torch.int64, device=x.device)
        rows, latents, coordinates = self.tile
        programs = triton.cdiv(batch, rows) * triton.cdiv(d_sae, latents)
        if programs:
            # Scalars reach a kernel in float32. A window wider by 2⁻²⁰ loses no entry, and those it adds have no gradient.
            half_window = bandwidth / 2 * (1 + 2.0**-20)
            precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
            select_kernel[(programs,)](
                x, atoms, bias, threshold, keys, z, count, batch, d_sae, width, capacity, half_window,
                PRECISION=precision, OPERAND=_factors(x), ACC=_sums(x), BLOCK_B=rows, BLOCK_S=latents, BLOCK_D=coordinates,
                GROUP=self.group,
                num_warps=8, num_stages=3, enable_fp_fusion=True,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        return _Found(keys, z, int(count))

    def bag_sum(
        self,
        table: Float[Tensor, "n d_in"],
        index: Int64[Tensor, " entries"],
        bags: Int64[Tensor, " entries"],
        weights: Float[Tensor, " entries"],
        count: int,
    ) -> Float[Tensor, "count d_in"]:
        """Sums weighted rows of a table by bag.

        Args:
            table, index, bags, weights, count: as in `Kernels.bag_sum`.

        Returns:
            The sums, shape `(count, d_in)`, in the dtype of `weights`; 0 for an empty bag.
        """
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
        """Computes x[row]·atoms[column] of each entry.

        Args:
            x, atoms, entries: as in `Kernels.sampled_dot`.

        Returns:
            The products, shape `(entries,)`, float32, or float64 for operands of that dtype.
        """
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


class _Found(NamedTuple):
    """Entries in the order in which they were found.

    Attributes:
        keys: column·batch + row of each entry, int64, shape `(capacity,)`; only the first `number` are set.
        z: pre-activation of each entry, likewise.
        number: how many entries there are, also of those for which there was no slot.
    """

    keys: Tensor
    z: Tensor
    number: int


def _sums(operand: Tensor) -> tl.dtype:
    """Returns the dtype in which products of operands of this dtype are summed."""
    return tl.float64 if operand.dtype == torch.float64 else tl.float32


def _factors(operand: Tensor) -> tl.dtype:
    """Returns the dtype in which operands are multiplied: their own, or that of the sums in Triton's interpreter.

    The interpreter would multiply the bit patterns of bfloat16 numbers (triton-lang/triton#11584). Products of 16-bit
    numbers are exact in float32, so the result is the same.
    """
    low = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}.get(operand.dtype, _sums(operand))
    return low if operand.is_cuda else _sums(operand)


@triton.jit
@no_type_check
def select_kernel(
    x, atoms, bias, threshold, keys, values, count, batch, d_sae, width, capacity, half_window,
    PRECISION: tl.constexpr, OPERAND: tl.constexpr, ACC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Computes z = x·w_j + b_j of a (BLOCK_B, BLOCK_S) tile and lists where z > θ or |z − θ| < half_window.

    Of each such entry, the key column·batch + row and z are written to the next free slot. `count` is the number of
    entries found, also of those beyond `capacity`, which are not written.
    """
    # GROUP blocks of rows go through the latents together, so that neighbouring programs find operands in the L2 cache
    row_blocks, column_blocks = tl.cdiv(batch, BLOCK_B), tl.cdiv(d_sae, BLOCK_S)
    group, place = tl.program_id(0) // (GROUP * column_blocks), tl.program_id(0) % (GROUP * column_blocks)
    size = min(row_blocks - group * GROUP, GROUP)
    first_row = (group * GROUP + place % size).to(tl.int64) * BLOCK_B
    first_column = (place // size).to(tl.int64) * BLOCK_S
    # indices within a tile are of 32 bits, which saves registers
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
    z = (
        (z + b[None, :]).to(values.dtype.element_ty).to(ACC)
    )  # the stored number itself is compared, so that it agrees with the decision
    beyond = z - theta[None, :]
    kept = ((beyond > 0) | (tl.abs(beyond) < half_window)) & row_in[:, None] & column_in[None, :]
    of_row = tl.sum(kept.to(tl.int32), 1)
    total = tl.sum(of_row, 0)
    if total > 0:
        # programs get their slots in the order of arrival, which varies; the caller sorts the entries by key
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
    """Computes out_b = Σ weights_e·table[index_e] over pointers_b ≤ e < pointers_{b+1}, in one fixed order.

    Each program handles one bag and BLOCK_D coordinates. Rows of weight 0 are not read.
    """
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
    """Computes out_e = x[row_e]·atoms[column_e], BLOCK_E entries a program.

    Neighbouring entries mostly have the same column, so a program reads few atoms.
    """
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
