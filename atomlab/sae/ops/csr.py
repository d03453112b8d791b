"""Codes as CSR matrices, for millions of vectors: the memory of a tile and of the active entries."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.ops.kernels import kernels_for
from atomlab.sae.sparse_code import csr


@torch.no_grad()
@no_autocast()
def encode_csr(sae: ThresholdSAE, x: Float[Tensor, "samples d_in"], block: int = 8192) -> Tensor:
    """The code of each sample as one torch CSR tensor (samples, d_sae); columns ascend within a row.

    Exact: pre-activations in the weights' dtype decide, whatever autocast is on, screened in bfloat16 where that pays;
        2·samples·d_in·d_sae FLOPs, in blocks of samples.
    """
    kernels = kernels_for(x.device)
    atoms = kernels.operand(sae.W_enc.T.contiguous())
    columns, values, sizes = [], [], []
    for part in x.to(sae.W_dec.dtype).split(block):
        centred = part - sae.b_dec if sae.apply_b_dec_to_input else part
        z, entries = kernels.find(kernels.operand(centred), atoms, sae.b_enc, sae.threshold, 0.0)
        order = entries.row_order()
        columns.append(entries.columns[order])
        values.append(z[order])
        sizes.append(torch.bincount(entries.rows, minlength=len(part)))
    pointers = torch.cat([x.new_zeros(1, dtype=torch.int64), *sizes]).cumsum(0)
    return csr(pointers, torch.cat(columns), torch.cat(values), (len(x), sae.d_sae))


@torch.no_grad()
@no_autocast()
def decode_csr(
    codes: Tensor, W_dec: Float[Tensor, "d_sae d_in"], b_dec: Float[Tensor, " d_in"]
) -> Float[Tensor, "samples d_in"]:
    """x̂ = f W_dec + b_dec of a CSR code matrix; 2·d_in FLOPs an entry."""
    rows = torch.repeat_interleave(codes.crow_indices().diff())
    kernels = kernels_for(W_dec.device)
    x_hat = kernels.bag_sum(kernels.operand(W_dec), codes.col_indices(), rows, codes.values(), codes.shape[0])
    return x_hat + b_dec
