"""Encodes and decodes millions of vectors, with codes as CSR matrices: only active entries need memory."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae.baselines.baseline_sae import SAE, BaselineSAE
from atomlab.sae.ops.kernels import kernels_for
from atomlab.sae.sparse_code import csr, entry_rows


@torch.no_grad()
@no_autocast()
def encode_csr(sae: SAE, x: Float[Tensor, "samples d_in"], block: int = 8192) -> Tensor:
    """Encodes activations to one CSR matrix of their codes.

    The support is exact: pre-activations in the dtype of the weights decide, also under autocast. Where it saves time a
    bfloat16 product rules out most entries first, with a proven margin (`bfloat16_screen`).

    Args:
        sae: the TSAE, or a baseline, whose codes are those of its `encode`.
        x: activations, shape `(samples, d_in)`, of any floating dtype.
        block: number of samples that are encoded at a time.

    Returns:
        A torch CSR tensor of shape `(samples, d_sae)` in the dtype of the weights; columns ascend within a row.

    Cost: 2·samples·d_in·d_sae FLOPs; memory of the active entries and of a tile of the product, for a baseline of the
    dense codes of a block.
    """
    if isinstance(sae, BaselineSAE):
        return _dense_blocks(sae, x, block)
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


def _dense_blocks(sae: BaselineSAE, x: Tensor, block: int) -> Tensor:
    """The codes of a baseline, block by block, of which only what is not 0 is kept."""
    parts = []
    for part in x.to(sae.W_dec.dtype).split(block):
        codes = sae.encode(part)
        rows, columns = codes.nonzero(as_tuple=True)
        parts.append((torch.bincount(rows, minlength=len(part)), columns, codes[rows, columns]))
    sizes, columns, values = (torch.cat(found) for found in zip(*parts, strict=True))
    pointers = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return csr(pointers, columns, values, (len(x), sae.d_sae))


@torch.no_grad()
@no_autocast()
def decode_csr(
    codes: Tensor, W_dec: Float[Tensor, "d_sae d_in"], b_dec: Float[Tensor, " d_in"]
) -> Float[Tensor, "samples d_in"]:
    """Decodes a CSR matrix of codes: x̂ = f W_dec + b_dec.

    Args:
        codes: f, a CSR tensor of shape `(samples, d_sae)`, of any floating dtype; values are rounded to that of W_dec.
        W_dec: atoms as rows, shape `(d_sae, d_in)`.
        b_dec: shape `(d_in,)`.

    Returns:
        x̂, shape `(samples, d_in)`, in the dtype of W_dec.

    Cost: 2·d_in FLOPs an entry.
    """
    rows = entry_rows(codes)
    kernels = kernels_for(W_dec.device)
    values = codes.values().to(W_dec.dtype)
    x_hat = kernels.bag_sum(kernels.operand(W_dec), codes.col_indices(), rows, values, codes.shape[0])
    return x_hat + b_dec
