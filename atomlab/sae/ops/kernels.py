"""Triton kernels of the step on entries: one dense product that keeps what is above a threshold, and sums over entries.

Operands in any floating dtype, sums in float32 (float64 for float64). Matrices are contiguous, rows of `width` numbers.
Without a GPU they run in Triton's interpreter (TRITON_INTERPRET=1 before Triton's first import): tests only.
"""

from typing import no_type_check

import triton
import triton.language as tl


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
