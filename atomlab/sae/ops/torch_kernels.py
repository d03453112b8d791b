"""The three kernels of the sparse step from stock torch operators: for any device, deterministic on the CPU.

`select` is the only dense product; `bag_sum` and `sampled_dot` cost 2·d_in FLOPs an entry.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from atomlab.autocast import autocast_dtype
from atomlab.sae.ops.screen import candidates, pays
from atomlab.sae.ops.select import below, select
from atomlab.sae.sparse_code import Entries, csr, offsets


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


@final
@dataclass(frozen=True)
class TorchKernels:
    """`Kernels` from stock torch operators, for any device.

    Args:
        screened: find the entries by a bfloat16 product with a proven margin (screen.py) where that pays (None),
            always or never. The entries
            and their values are those of the float32 dot products either way; without it they are those of the
            float32 matrix product, which differ in the last bits.
    """

    screened: bool | None = None

    def operand(self, v: Tensor) -> Tensor:
        return v

    @torch.no_grad()
    def find(
        self,
        x: Float[Tensor, "batch d_in"],
        atoms: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_sae"],
        threshold: Float[Tensor, " d_sae"],
        bandwidth: float,
    ) -> tuple[Float[Tensor, " entries"], Entries]:
        """See `Kernels.find`. Under autocast the product is in its dtype."""
        least = threshold - bandwidth / 2 - bias
        least = least - 8 * torch.finfo(least.dtype).eps * (
            threshold + bandwidth + bias.abs()
        )  # rounding of z and of this line
        if pays(x, atoms.T) if self.screened is None else self.screened:
            entries = candidates(x, atoms, least)
            z = sampled_dot(x, atoms, entries)
        else:
            dtype = autocast_dtype(x.device) or x.dtype
            z, entries = select(x.to(dtype), atoms.to(dtype), below(least, dtype))
        theta = threshold.index_select(0, entries.columns)
        z = z + bias.index_select(0, entries.columns)
        kept = ((z > theta) | ((z - theta).abs() < bandwidth / 2)).nonzero().squeeze(1)
        z, rows, columns = (v.index_select(0, kept) for v in (z, entries.rows, entries.columns))
        return z, Entries(rows, columns, entries.batch, entries.d_sae)

    bag_sum = staticmethod(bag_sum)
    sampled_dot = staticmethod(sampled_dot)
