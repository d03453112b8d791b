"""The kernels of the sparse step from stock torch operators: for any device, and deterministic on the CPU."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from atomlab.autocast import autocast_dtype
from atomlab.sae.ops.bfloat16_screen import candidates, pays
from atomlab.sae.ops.tiled_select import below, select
from atomlab.sae.sparse_code import Entries, csr, offsets


def bag_sum(
    table: Float[Tensor, "n d_in"],
    index: Int64[Tensor, " entries"],
    bags: Int64[Tensor, " entries"],
    weights: Float[Tensor, " entries"],
    count: int,
) -> Float[Tensor, "count d_in"]:
    """Sums weighted rows of a table by bag, as `Kernels.bag_sum` says; entries of weight 0 are skipped.

    Args:
        table: shape `(n, d_in)`.
        index: row of the table of each entry, shape `(entries,)`.
        bags: bag of each entry, ascending, shape `(entries,)`.
        weights: shape `(entries,)`.
        count: number of bags.

    Returns:
        The sums, shape `(count, d_in)`, each in the order of its entries; 0 for an empty bag.
    """
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
    """Computes x[row]·atoms[column] of each entry, each in an order of summation that no other entry influences.

    Args:
        x: shape `(batch, d_in)`.
        atoms: shape `(d_sae, d_in)`.
        entries: which pairs, in column order.

    Returns:
        The products, shape `(entries,)`.
    """
    pattern = csr(
        offsets(entries.columns, entries.d_sae), entries.rows, x.new_zeros(len(entries.rows)), (len(atoms), len(x))
    )
    return torch.sparse.sampled_addmm(pattern, atoms, x.T, beta=0.0).values()


@final
@dataclass(frozen=True)
class TorchKernels:
    """The `Kernels` from stock torch operators, for any device.

    Attributes:
        screened: whether entries are found by a bfloat16 product with a proven margin (`bfloat16_screen`); None means where
            that saves time. Screened entries and values are those of float32 dot products; others are those of the
            float32 matrix product, which differs in the last bits.
    """

    screened: bool | None = None

    def operand(self, v: Tensor) -> Tensor:
        """Returns the matrix as it is."""
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
        """Finds the entries of the code that have a value or a gradient.

        Args:
            x, atoms, bias, threshold, bandwidth: as in `Kernels.find`.

        Returns:
            z, shape `(entries,)`, and the positions, as in `Kernels.find`. Under autocast, products that are not
            screened are computed in its dtype.
        """
        least = threshold - bandwidth / 2 - bias
        # lowered by more than the rounding of z and of these lines; the exact condition is checked on z below
        least = least - 8 * torch.finfo(least.dtype).eps * (threshold + bandwidth + bias.abs())
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
