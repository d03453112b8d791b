"""The step on entries: only the encoder's product is dense; decoder, its gradient, the code's and the encoder's touch
entries only.

    z = x·w_j + b_j        on entries with z > θ or |z − θ| < ε/2, found by `select`
    x̂ = Σ_j f_j d_j        ∂ℓ/∂f_ij = g_i·d_j        ∂ℓ/∂d_j = Σ_i f_ij g_i        ∂ℓ/∂w_j = Σ_i (∂ℓ/∂z_ij) x_i

Sums over a sample's entries run in row order, sums over a latent's in column order: no atomic additions to a matrix.
On the CPU results repeat bit for bit; on a GPU they do where torch's deterministic algorithms are on (the sums over
entries of b_enc's and θ's gradients are torch's own).
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.ops.kernels import Kernels
from atomlab.sae.sparse_code import Code, Entries


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
