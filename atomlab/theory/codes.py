"""Supports of sparse codes as padded indices, so that algebra on supports is batched and not a loop over samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Supports:
    """Padded supports of a batch of codes.

    Attributes:
        indices: (samples, k_max) int64 latents, 0 in the padding.
        mask: (samples, k_max) which entries are real.
        values: (samples, k_max) the code's values, 0 in the padding.
    """

    indices: Int[Tensor, "samples k"]
    mask: Bool[Tensor, "samples k"]
    values: Float[Tensor, "samples k"]

    @property
    def sizes(self) -> Int[Tensor, " samples"]:
        return self.mask.sum(1)


def supports(codes: Tensor) -> Supports:
    """Of dense (samples, d_sae) codes or a CSR tensor of that shape; memory (samples, largest support).

    Raises:
        ValueError: NaN or infinite values.
    """
    if codes.layout == torch.sparse_csr:
        stored = codes.values() != 0
        rows = torch.repeat_interleave(torch.arange(codes.shape[0], device=codes.device), codes.crow_indices().diff())[stored]
        columns, values = codes.col_indices()[stored], codes.values()[stored]
    else:
        rows, columns = codes.nonzero(as_tuple=True)
        values = codes[rows, columns]
    if not torch.isfinite(values).all():
        raise ValueError("The codes have NaN or infinite values: check the encoder and its inputs.")
    sizes = torch.bincount(rows, minlength=codes.shape[0])
    slot = torch.arange(len(rows), device=values.device) - (sizes.cumsum(0) - sizes)[rows]
    shape = (codes.shape[0], max(1, int(sizes.max()) if len(sizes) else 1))
    indices, padded = columns.new_zeros(shape), values.new_zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool, device=values.device)
    indices[rows, slot], padded[rows, slot], mask[rows, slot] = columns, values, True
    return Supports(indices.long(), mask, padded)


def support_grams(unit: Float[Tensor, "d_sae d_in"], chosen: Supports) -> Float[Tensor, "samples k k"]:
    """G_Λ of each sample in float64, the identity in the padding. Memory (samples, k, d_in)."""
    atoms = unit.double()[chosen.indices] * chosen.mask[:, :, None]
    return atoms @ atoms.mT + torch.diag_embed((~chosen.mask).double())
