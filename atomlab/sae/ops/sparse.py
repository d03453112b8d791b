"""The sparse implementation of the step: only the encoder's product is dense, all else touches active entries only.

An entry is a sample i and a latent j with z > θ or |z − θ| < ε/2; elsewhere the code and all gradients are 0. With
g = ∂ℓ/∂x̂, the step consists of sums over entries:

    z_ij = x_i·w_j + b_j       ∂ℓ/∂w_j = Σ_i (∂ℓ/∂z_ij) x_i       ∂ℓ/∂x_i = Σ_j (∂ℓ/∂z_ij) w_j
    x̂_i = Σ_j f_ij d_j         ∂ℓ/∂d_j = Σ_i f_ij g_i             ∂ℓ/∂f_ij = g_i·d_j

Sums over the entries of a sample run in row order and sums over those of a latent in column order, without atomic
additions to a matrix. On the CPU results therefore repeat bit for bit. On a GPU they do if torch's deterministic
algorithms are on, because torch itself sums the gradients of b_enc and θ over entries.
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
    """The `Operators` that compute only the entries of the code that have a value or a gradient.

    Args:
        kernels: the operations on entries, for the device of the matrices.

    Cost: 2·batch·d_in·d_sae FLOPs for the encoder's product and about 10·d_in FLOPs an entry for the rest; memory of a
    tile of the product, of the entries and of the gradients.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        """Computes the code of a batch as a list of its entries.

        Args:
            sae, x: as in `Operators.encode`.

        Returns:
            The code, with its entries in column order.
        """
        x = x.to(sae.W_dec.dtype)  # from 16 bits under autocast: gradients are summed in this dtype
        centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
        # one latent's weights as a contiguous row: no copy, since `ThresholdSAE` stores them like this
        z, rows, columns = _Encode.apply(
            centred, sae.W_enc.T.contiguous(), sae.b_enc, sae.threshold, sae.bandwidth, self.kernels
        )
        entries = Entries(rows, columns, len(x), sae.d_sae)
        return Code(z, sae.activate(z, entries.columns), entries, len(x))

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        """Computes the reconstruction x̂ = f W_dec + b_dec.

        Args:
            sae: as in `Operators.decode`.
            code: a code from this class's `encode`.

        Returns:
            x̂, shape `(batch, d_in)`.
        """
        assert code.entries is not None
        return sae.shard.total(_Decode.apply(code.values, sae.W_dec, code.entries, self.kernels)) + sae.b_dec


class _Encode(torch.autograd.Function):
    """z and the rows and columns of the entries, of x, W_encᵀ and b_enc; θ only selects and gets no gradient here."""

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
    """f W_dec of the values of a code's entries and W_dec."""

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
