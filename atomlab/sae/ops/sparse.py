"""The step on entries: only the encoder's product is dense; decoder, its gradient, the code's and the encoder's touch
entries only.

    z = x·w_j + b_j        on entries with z > θ or |z − θ| < ε/2, found by `select`
    x̂ = Σ_j f_j d_j        ∂ℓ/∂f_ij = g_i·d_j        ∂ℓ/∂d_j = Σ_i f_ij g_i        ∂ℓ/∂w_j = Σ_i (∂ℓ/∂z_ij) x_i

Sums over a sample's entries run in row order, sums over a latent's in column order: no atomic additions to a matrix.
On the CPU results repeat bit for bit; on a GPU they do where torch's deterministic algorithms are on (the sums over
entries of b_enc's and θ's gradients are torch's own).
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.autocast import autocast_dtype
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.code import Code, Entries
from atomlab.sae.ops import stock
from atomlab.sae.ops.screen import candidates, pays


@runtime_checkable
class Kernels(Protocol):
    """What the step on entries is made of."""

    def operand(self, v: Tensor) -> Tensor:
        """A matrix as the other three read it."""
        ...

    def find(
        self,
        x: Float[Tensor, "batch d_in"],
        atoms: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_sae"],
        threshold: Float[Tensor, " d_sae"],
        bandwidth: float,
    ) -> tuple[Float[Tensor, " entries"], Entries]:
        """z of all entries with z > θ or |z − θ| < ε/2, and where they are."""
        ...

    def bag_sum(
        self,
        table: Float[Tensor, "n d_in"],
        index: Int64[Tensor, " entries"],
        bags: Int64[Tensor, " entries"],
        weights: Float[Tensor, " entries"],
        count: int,
    ) -> Float[Tensor, "count d_in"]:
        """Row b is Σ weights_e·table[index_e] over the entries with bags_e = b; `bags` ascend."""
        ...

    def sampled_dot(
        self, x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], entries: Entries
    ) -> Float[Tensor, " entries"]:
        """x[row]·atoms[column] of each entry."""
        ...


@final
@dataclass(frozen=True)
class Stock:
    """`Kernels` from stock torch operators (stock.py), for any device.

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
            z = stock.sampled_dot(x, atoms, entries)
        else:
            dtype = autocast_dtype(x.device) or x.dtype
            z, entries = stock.select(x.to(dtype), atoms.to(dtype), stock.below(least, dtype))
        theta = threshold.index_select(0, entries.columns)
        z = z + bias.index_select(0, entries.columns)
        kept = ((z > theta) | ((z - theta).abs() < bandwidth / 2)).nonzero().squeeze(1)
        z, rows, columns = (v.index_select(0, kept) for v in (z, entries.rows, entries.columns))
        return z, Entries(rows, columns, entries.batch, entries.d_sae)

    bag_sum = staticmethod(stock.bag_sum)
    sampled_dot = staticmethod(stock.sampled_dot)


def kernels_for(device: torch.device, screened: bool | None = None, room: int = 1 << 20) -> Kernels:
    """Triton's on a CUDA device where Triton is installed (with `room` for so many entries), `Stock` elsewhere."""
    if device.type == "cuda" and find_spec("triton") is not None:
        from atomlab.sae.ops.fused import Fused  # imports Triton, which not every machine has

        return Fused(room)
    return Stock(screened)


@final
class Sparse:
    """`Operators` on entries: 2·batch·d_in·d_sae FLOPs and about 10·d_in an entry; memory of a tile, of the entries
    and of the gradients."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        x = x.to(sae.W_dec.dtype)  # autocast may have made it narrower; gradients are summed in the parameters' dtype
        centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
        # the latents' weights as contiguous rows, as they lie in memory unless someone put them otherwise
        z, rows, columns = _Encode.apply(
            centred, sae.W_enc.T.contiguous(), sae.b_enc, sae.threshold, sae.bandwidth, self.kernels
        )
        entries = Entries(rows, columns, len(x), sae.d_sae)
        return Code(z, sae.activate(z, entries.columns), entries, len(x))

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        assert code.entries is not None
        return _Decode.apply(code.values, sae.W_dec, code.entries, self.kernels) + sae.b_dec


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, atoms: Tensor, bias: Tensor, threshold: Tensor, bandwidth: float, kernels: Kernels
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, atoms = kernels.operand(x), kernels.operand(atoms)
        z, entries = kernels.find(x, atoms, bias, threshold, bandwidth)
        ctx.kernels = kernels
        ctx.save_for_backward(x, atoms, entries.rows, entries.columns)
        ctx.mark_non_differentiable(entries.rows, entries.columns)
        return z, entries.rows, entries.columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        x, atoms, rows, columns = ctx.saved_tensors
        kernels: Kernels = ctx.kernels
        to_x = None
        if ctx.needs_input_grad[0]:
            order = rows.sort(stable=True).indices
            to_x = kernels.bag_sum(atoms, columns[order], rows[order], g[order], len(x))
        to_atoms = kernels.bag_sum(x, rows, columns, g, len(atoms))
        to_bias = g.new_zeros(len(atoms)).index_add_(0, columns, g)
        return to_x, to_atoms, to_bias, None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, entries: Entries, kernels: Kernels) -> Tensor:
        atoms = kernels.operand(atoms)
        ctx.save_for_backward(values, atoms)
        ctx.entries, ctx.kernels = entries, kernels
        order = entries.row_order()
        return kernels.bag_sum(atoms, entries.columns[order], entries.rows[order], values[order], entries.batch)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        values, atoms = ctx.saved_tensors
        g = gradients[0].to(atoms.dtype).contiguous()
        entries: Entries = ctx.entries
        kernels: Kernels = ctx.kernels
        to_values = kernels.sampled_dot(g, atoms, entries)
        to_atoms = kernels.bag_sum(g, entries.rows, entries.columns, values, entries.d_sae)
        return to_values, to_atoms, None, None
