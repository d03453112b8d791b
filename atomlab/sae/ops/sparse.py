"""The step on entries: only the encoder's product is dense; decoder, its gradient, the code's and the encoder's touch
entries only.

    z = x·w_j + b_j        on entries with z > θ or |z − θ| < ε/2, found by `select`
    x̂ = Σ_j f_j d_j        ∂ℓ/∂f_ij = g_i·d_j        ∂ℓ/∂d_j = Σ_i f_ij g_i        ∂ℓ/∂w_j = Σ_i (∂ℓ/∂z_ij) x_i

Sums over a sample's entries run in row order, sums over a latent's in column order: no atomic additions, so results
repeat bit for bit.
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.code import Code, Entries
from atomlab.sae.ops import stock
from atomlab.sae.ops.screen import candidates, pays


@final
class Sparse:
    """`Operators` on entries: 2·batch·d_in·d_sae FLOPs and about 10·d_in an entry; memory of a tile, of the entries
    and of the gradients.

    Args:
        screened: find the entries by a bfloat16 product with a proven margin (screen.py) where that pays (None),
            always or never. The entries
            and their values are those of the float32 dot products either way; without it they are those of the
            float32 matrix product, which differ in the last bits.
    """

    def __init__(self, screened: bool | None = None) -> None:
        self.screened = screened

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        x = x.to(sae.W_dec.dtype)  # autocast may have made it narrower; gradients are summed in the parameters' dtype
        centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
        screened = pays(centred, sae.W_enc) if self.screened is None else self.screened
        # the latents' weights as contiguous rows, as they lie in memory unless someone put them otherwise
        z, rows, columns = _Encode.apply(
            centred, sae.W_enc.T.contiguous(), sae.b_enc, sae.threshold, sae.bandwidth, screened
        )
        entries = Entries(rows, columns, len(x), sae.d_sae)
        return Code(z, sae.activate(z, entries.columns), entries, len(x))

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        assert code.entries is not None
        return _Decode.apply(code.values, sae.W_dec, code.entries) + sae.b_dec


@torch.no_grad()
def find_entries(
    x: Float[Tensor, "batch d_in"],
    atoms: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
    bandwidth: float,
    screened: bool,
) -> tuple[Float[Tensor, " entries"], Entries]:
    """z of all entries with z > θ or |z − θ| < ε/2, and where they are. Under autocast the product is in its dtype."""
    least = threshold - bandwidth / 2 - bias
    least = least - 8 * torch.finfo(least.dtype).eps * (
        threshold + bandwidth + bias.abs()
    )  # rounding of z and of this line
    if screened:
        entries = candidates(x, atoms, least)
        z = stock.sampled_dot(x, atoms, entries)
    else:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        z, entries = stock.select(x.to(dtype), atoms.to(dtype), stock.below(least, dtype))
    theta = threshold.index_select(0, entries.columns)
    z = z + bias.index_select(0, entries.columns)
    kept = ((z > theta) | ((z - theta).abs() < bandwidth / 2)).nonzero().squeeze(1)
    z, rows, columns = (v.index_select(0, kept) for v in (z, entries.rows, entries.columns))
    return z, Entries(rows, columns, entries.batch, entries.d_sae)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, atoms: Tensor, bias: Tensor, threshold: Tensor, bandwidth: float, screened: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        z, entries = find_entries(x, atoms, bias, threshold, bandwidth, screened)
        ctx.save_for_backward(x, atoms, entries.rows, entries.columns)
        ctx.mark_non_differentiable(entries.rows, entries.columns)
        return z, entries.rows, entries.columns

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g = gradients[0]
        x, atoms, rows, columns = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            order = rows.sort(stable=True).indices
            to_x = stock.bag_sum(atoms, columns[order], rows[order], g[order], len(x))
        to_atoms = stock.bag_sum(x, rows, columns, g, len(atoms))
        to_bias = torch.zeros_like(atoms[:, 0]).index_add_(0, columns, g)
        return to_x, to_atoms, to_bias, None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(values, atoms)
        ctx.entries = entries
        order = entries.row_order()
        return stock.bag_sum(atoms, entries.columns[order], entries.rows[order], values[order], entries.batch)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        g = gradients[0].contiguous()
        values, atoms = ctx.saved_tensors
        entries: Entries = ctx.entries
        to_values = stock.sampled_dot(g, atoms, entries)
        to_atoms = stock.bag_sum(g, entries.rows, entries.columns, values, entries.d_sae)
        return to_values, to_atoms, None
