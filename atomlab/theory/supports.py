"""Supports of sparse codes as padded indices, so that algebra on supports is batched and not a loop over samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast

_GATHERED = 2**20  # numbers of gathered atoms at a time, so that they are read again from cache
_NOT_FINITE = "The codes have NaN or infinite values: check the encoder and its inputs."


def check_codes(codes: Tensor, dictionary: Tensor) -> None:
    """A (samples, d_sae) matrix, one column an atom; values are checked where they are read.

    Raises:
        ValueError: another shape.
    """
    if codes.ndim != 2 or codes.shape[1] != len(dictionary):
        raise ValueError(
            f"Codes should be a (samples, {len(dictionary)}) matrix for this dictionary of {len(dictionary)} atoms, got "
            f"shape {tuple(codes.shape)}."
        )


def check_vectors(x: Tensor, dictionary: Tensor, codes: Tensor | None = None) -> None:
    """Finite (samples, d_in) vectors, as many as codes.

    Raises:
        ValueError: they are not.
    """
    if x.ndim != 2 or x.shape[1] != dictionary.shape[-1] or not x.isfinite().all():
        raise ValueError(
            f"Expected finite (samples, {dictionary.shape[-1]}) vectors for this dictionary; got shape "
            f"{tuple(x.shape)}, NaN or infinite entries."
        )
    if codes is not None and len(x) != codes.shape[0]:
        raise ValueError(f"{len(x)} vectors do not go with {codes.shape[0]} codes: give each vector its own code.")


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

    def take(self, rows: Int[Tensor, " part"]) -> "Supports":
        """Of these samples, padded to the largest support among them only."""
        width = max(1, int(self.mask[rows].sum(1).max())) if len(rows) else 1
        return Supports(self.indices[rows, :width], self.mask[rows, :width], self.values[rows, :width])

    def by_size(self, cost: Callable[[int], int], budget: int) -> list[Int[Tensor, " part"]]:
        """Rows in parts of like support size, so that little is padding: at most `budget` / cost(largest size) samples
        a part.
        """
        sizes, parts = self.sizes, []
        order = sizes.argsort(stable=True)
        while len(order):
            count = max(1, budget // cost(max(1, int(sizes[order[-1]]))))
            parts.append(order[-count:])
            order = order[:-count]
        return parts


class CsrParts(NamedTuple):
    """The nonzeros of a code matrix in the layout of CSR: sample i owns the entries pointers[i] to pointers[i + 1] − 1.

    Attributes:
        pointers: (samples + 1,) int64.
        latents: (nonzeros,) int64, the column of each nonzero.
        values: (nonzeros,) in the dtype of the codes.
    """

    pointers: Int[Tensor, " samples_and_1"]
    latents: Int[Tensor, " nonzeros"]
    values: Float[Tensor, " nonzeros"]


def csr_parts(codes: Tensor) -> CsrParts:
    """Pointers, latents and values of the nonzeros of dense (samples, d_sae) codes or a CSR tensor, as CSR has them:
    sample i owns the entries from pointers[i] up to pointers[i + 1].

    Raises:
        ValueError: NaN or infinite values, or codes that are no matrix.
    """
    if codes.ndim != 2:
        raise ValueError(f"Codes should be a (samples, d_sae) matrix, got shape {tuple(codes.shape)}: reshape them.")
    if codes.layout == torch.sparse_csr:
        pointers, columns, values = codes.crow_indices().long(), codes.col_indices().long(), codes.values()
        if len(values) and values.amin() > 0 and values.amax() < torch.inf:  # nearly always; false for NaN
            return CsrParts(pointers, columns, values)
        rows = torch.arange(codes.shape[0], device=codes.device).repeat_interleave(pointers.diff())
        stored = values.nonzero().squeeze(1)
        rows, columns, values = rows[stored], columns[stored], values[stored]
    else:
        rows, columns = codes.nonzero(as_tuple=True)
        values = codes[rows, columns]
    if not values.isfinite().all():
        raise ValueError(_NOT_FINITE)
    sizes = torch.bincount(rows, minlength=codes.shape[0])
    return CsrParts(torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), columns, values)


def support_sizes(codes: Tensor) -> Int[Tensor, " samples"]:
    """K of each sample, dense or CSR. Time and memory: one copy of dense codes, or the nonzeros.

    Raises:
        ValueError: NaN or infinite values.
    """
    return csr_parts(codes).pointers.diff() if codes.layout == torch.sparse_csr else _count(codes, 1)


def firing_counts(codes: Tensor) -> Int[Tensor, " d_sae"]:
    """On how many samples each latent is active, dense or CSR. Time and memory: one copy of dense codes, or the
    nonzeros.

    Raises:
        ValueError: NaN or infinite values.
    """
    if codes.layout == torch.sparse_csr:
        return torch.bincount(csr_parts(codes).latents, minlength=codes.shape[1])
    return _count(codes, 0)


def _count(codes: Tensor, dim: int) -> Tensor:
    if not codes.sum(dtype=torch.float64).isfinite():  # a NaN has sign 0; in float64, since large codes add up
        raise ValueError(_NOT_FINITE)
    # |sign| is vectorised where counting booleans is not; exact in float32 below 2^24.
    counts = codes.sign().abs_().sum(dim, dtype=torch.float32 if codes.shape[dim] < 2**24 else torch.float64)
    return counts.long()


def first_samples(codes: Tensor, count: int) -> Tensor:
    """The first `count` samples (or all), in the layout of the codes, dense or CSR. Time and memory O(1): a view."""
    if codes.layout != torch.sparse_csr:
        return codes[:count]
    pointers = codes.crow_indices()[: count + 1]
    columns, values = (part[: int(pointers[-1])] for part in (codes.col_indices(), codes.values()))
    return torch.sparse_csr_tensor(
        pointers, columns, values, (len(pointers) - 1, codes.shape[1]), check_invariants=False
    )


def supports(codes: Tensor) -> Supports:
    """Of dense (samples, d_sae) codes or a CSR tensor of that shape. Time: one pass; memory (samples, largest support).

    Raises:
        ValueError: NaN or infinite values, or codes that are no matrix.
    """
    pointers, columns, values = csr_parts(codes)
    sizes = pointers.diff()
    rows = torch.arange(len(sizes), device=values.device).repeat_interleave(sizes)
    slot = torch.arange(len(rows), device=values.device) - pointers[rows]
    shape = (codes.shape[0], max(1, int(sizes.max()) if len(sizes) else 1))
    indices, padded = columns.new_zeros(shape), values.new_zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool, device=values.device)
    indices[rows, slot], padded[rows, slot], mask[rows, slot] = columns, values, True
    return Supports(indices, mask, padded)


@no_autocast()
def support_grams(unit: Float[Tensor, "d_sae d_in"], chosen: Supports) -> Float[Tensor, "samples k k"]:
    """G_Λ of each sample in float64, the identity in the padding. Time 2·samples·K²·d_in FLOPs; memory: the result
    beside a few MB of gathered atoms.
    """
    samples, k = chosen.indices.shape
    grams = unit.new_empty((samples, k, k), dtype=torch.float64)
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(atoms.double(), atoms.double().mT, out=grams[part])
    pairs = chosen.mask[:, :, None] & chosen.mask[:, None, :]
    return torch.where(pairs, grams, torch.eye(k, dtype=grams.dtype, device=grams.device))


def gathered(unit: Float[Tensor, "d_sae d_in"], indices: Int[Tensor, "samples k"]) -> Iterator[tuple[slice, Tensor]]:
    """The atoms (part, k, d_in) of a few samples at a time, in one buffer that the next part overwrites."""
    (samples, k), d_in = indices.shape, unit.shape[1]
    step = min(samples, max(1, _GATHERED // (k * d_in)))
    unit, buffer = unit.detach(), unit.new_empty((step * k, d_in))
    for start in range(0, samples, max(1, step)):
        chosen = indices[start : start + step].flatten()
        rows = torch.index_select(unit, 0, chosen, out=buffer[: len(chosen)])
        yield slice(start, start + step), rows.view(-1, k, d_in)


@no_autocast()
def combine(
    unit: Float[Tensor, "d_sae d_in"], chosen: Supports, weights: Float[Tensor, "samples k"]
) -> Float[Tensor, "samples d_in"]:
    """Σ_{j∈Λ} w_j u_j of each sample; weights in the padding must be 0."""
    sums = unit.new_empty((len(weights), unit.shape[1]))
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(weights[part, None].to(unit), atoms, out=sums[part, None])
    return sums
