"""Sparse codes as padded arrays of their nonzeros, so that algebra on supports runs in batches and not sample by
sample.

The file also holds the two checks that every function of the room makes of its vectors and codes.
"""

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
    """Refuses codes whose shape does not fit the dictionary; their values are checked where they are read.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`.

    Raises:
        ValueError: the codes are not a matrix with one column for each atom.
    """
    if codes.ndim != 2 or codes.shape[1] != len(dictionary):
        raise ValueError(
            f"Codes should be a (samples, {len(dictionary)}) matrix for this dictionary of {len(dictionary)} atoms, got "
            f"shape {tuple(codes.shape)}: use codes of the same dictionary."
        )


def check_vectors(x: Tensor, dictionary: Tensor, codes: Tensor | None = None) -> None:
    """Refuses vectors that are not finite, not as wide as the atoms, or not as many as the codes.

    Args:
        x: vectors of shape `(samples, d_in)`.
        dictionary: atoms as rows, shape `(d_sae, d_in)`.
        codes: codes of the vectors, shape `(samples, d_sae)`; None if there are none to compare with.

    Raises:
        ValueError: another shape, NaN or infinite entries, or another number of samples than the codes have.
    """
    if x.ndim != 2 or x.shape[1] != dictionary.shape[-1]:
        raise ValueError(
            f"Vectors should be a (samples, {dictionary.shape[-1]}) matrix for this dictionary, got shape "
            f"{tuple(x.shape)}: use vectors of the same site."
        )
    if not x.isfinite().all():
        raise ValueError("The vectors have NaN or infinite entries: check their source.")
    if codes is not None and len(x) != codes.shape[0]:
        raise ValueError(f"Got {len(x)} vectors and {codes.shape[0]} codes: give each vector one code.")


@dataclass(frozen=True)
class Supports:
    """The supports of a batch of codes, padded to the size of the largest one.

    Attributes:
        indices: latents of each support, shape `(samples, k_max)`, int64; 0 in the padding.
        mask: which entries are real and not padding, shape `(samples, k_max)`.
        values: values of the code, shape `(samples, k_max)`, in the dtype of the codes; 0 in the padding.
    """

    indices: Int[Tensor, "samples k"]
    mask: Bool[Tensor, "samples k"]
    values: Float[Tensor, "samples k"]

    @property
    def sizes(self) -> Int[Tensor, " samples"]:
        """K of each sample: the number of its active latents, shape `(samples,)`, int64."""
        return self.mask.sum(1)

    def take(self, rows: Int[Tensor, " part"]) -> "Supports":
        """Selects samples, and pads them to the largest support among the selected ones only.

        Args:
            rows: sample numbers, shape `(part,)`, int64.

        Returns:
            The supports of these samples, in the order of `rows`.
        """
        width = max(1, int(self.mask[rows].sum(1).max())) if len(rows) else 1
        return Supports(self.indices[rows, :width], self.mask[rows, :width], self.values[rows, :width])

    def by_size(self, cost: Callable[[int], int], budget: int) -> list[Int[Tensor, " part"]]:
        """Splits the samples into parts of similar support size, so that a part holds little padding.

        Args:
            cost: gives the memory of one sample (in any unit) from the support size to which it is padded.
            budget: the most memory that a part may take, in the unit of `cost`; a part has at least one sample.

        Returns:
            Sample numbers of each part, int64. The parts come in order of falling support size and cover every sample
            once.
        """
        sizes, parts = self.sizes, []
        order = sizes.argsort(stable=True)
        while len(order):
            count = max(1, budget // cost(max(1, int(sizes[order[-1]]))))
            parts.append(order[-count:])
            order = order[:-count]
        return parts


class CsrParts(NamedTuple):
    """The nonzeros of a code matrix in CSR layout: sample i owns the entries from pointers[i] up to pointers[i + 1].

    Attributes:
        pointers: start of each sample's entries, and the end of the last one's, shape `(samples + 1,)`, int64.
        latents: column of each nonzero, shape `(nonzeros,)`, int64.
        values: value of each nonzero, shape `(nonzeros,)`, in the dtype of the codes.
    """

    pointers: Int[Tensor, " samples_and_1"]
    latents: Int[Tensor, " nonzeros"]
    values: Float[Tensor, " nonzeros"]


def csr_parts(codes: Tensor) -> CsrParts:
    """Reads the nonzeros of codes, dense or CSR, in the order of the samples.

    Explicit zeros of a CSR tensor are left out. Time: one pass over dense codes, or over the nonzeros. Memory: the
    result; a CSR tensor whose values are all positive and whose index tensors are int64 is not copied.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.

    Returns:
        Pointers, latents and values of the nonzeros; exact.

    Raises:
        ValueError: the codes are not a matrix, or have NaN or infinite values.
    """
    if codes.ndim != 2:
        raise ValueError(f"Codes should be a (samples, d_sae) matrix, got shape {tuple(codes.shape)}: reshape them.")
    if codes.layout == torch.sparse_csr:
        pointers, columns, values = codes.crow_indices().long(), codes.col_indices().long(), codes.values()
        if len(values) and values.amin() > 0 and values.amax() < torch.inf:  # the usual case; False if there is a NaN
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
    """Counts the active latents of each sample: its K, or L0.

    Time and memory: one copy of dense codes, or the nonzeros of CSR codes.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.

    Returns:
        K of each sample, shape `(samples,)`, int64; exact.

    Raises:
        ValueError: the codes have NaN or infinite values.
    """
    return csr_parts(codes).pointers.diff() if codes.layout == torch.sparse_csr else _count(codes, 1)


def firing_counts(codes: Tensor) -> Int[Tensor, " d_sae"]:
    """Counts the samples on which each latent is active.

    Time and memory: one copy of dense codes, or the nonzeros of CSR codes.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.

    Returns:
        Number of samples for each latent, shape `(d_sae,)`, int64; exact.

    Raises:
        ValueError: the codes have NaN or infinite values.
    """
    if codes.layout == torch.sparse_csr:
        return torch.bincount(csr_parts(codes).latents, minlength=codes.shape[1])
    return _count(codes, 0)


def _count(codes: Tensor, dim: int) -> Tensor:
    if not codes.sum(dtype=torch.float64).isfinite():  # sign() hides NaN; float64, since a sum of large codes overflows
        raise ValueError(_NOT_FINITE)
    # Summing |sign| is vectorised, counting booleans is not; float32 sums are exact below 2^24.
    counts = codes.sign().abs_().sum(dim, dtype=torch.float32 if codes.shape[dim] < 2**24 else torch.float64)
    return counts.long()


def first_samples(codes: Tensor, count: int) -> Tensor:
    """Selects the first samples of a batch of codes without a copy.

    Time and memory: O(1); the result shares the memory of the input.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        count: how many samples to keep; all are kept if there are fewer.

    Returns:
        Codes of shape `(min(count, samples), d_sae)` in the layout and dtype of the input.
    """
    if codes.layout != torch.sparse_csr:
        return codes[:count]
    pointers = codes.crow_indices()[: count + 1]
    columns, values = (part[: int(pointers[-1])] for part in (codes.col_indices(), codes.values()))
    return torch.sparse_csr_tensor(
        pointers, columns, values, (len(pointers) - 1, codes.shape[1]), check_invariants=False
    )


def supports(codes: Tensor) -> Supports:
    """Finds the supports of codes, with their values.

    Time: one pass over the codes. Memory: O(samples · largest support).

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.

    Returns:
        Padded supports; latents in the order of their columns for dense codes, in stored order for CSR codes.

    Raises:
        ValueError: the codes are not a matrix, or have NaN or infinite values.
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
    """Computes the Gram matrix G_Λ of the atoms of each support.

    Time: 2·samples·K²·d_in float64 FLOPs. Memory: the result and a few megabytes of gathered atoms.

    Args:
        unit: atoms of unit length as rows, shape `(d_sae, d_in)`, as `unit_rows` gives them.
        chosen: supports Λ, padded to K atoms.

    Returns:
        G_Λ of each sample, shape `(samples, K, K)`, float64; rows and columns of the padding are those of the identity.
    """
    samples, k = chosen.indices.shape
    grams = unit.new_empty((samples, k, k), dtype=torch.float64)
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(atoms.double(), atoms.double().mT, out=grams[part])
    pairs = chosen.mask[:, :, None] & chosen.mask[:, None, :]
    return torch.where(pairs, grams, torch.eye(k, dtype=grams.dtype, device=grams.device))


def gathered(unit: Float[Tensor, "d_sae d_in"], indices: Int[Tensor, "samples k"]) -> Iterator[tuple[slice, Tensor]]:
    """Gathers the atoms of the supports, a few samples at a time, so that they are read again from cache.

    Time: O(samples·K·d_in). Memory: one buffer of about 2²⁰ numbers, which each part overwrites.

    Args:
        unit: atoms as rows, shape `(d_sae, d_in)`.
        indices: latents of each sample, shape `(samples, k)`, int64.

    Yields:
        The slice of samples and their atoms of shape `(part, k, d_in)`, valid until the next part is asked for.
    """
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
    """Sums the weighted atoms of each support: Σ_{j∈Λ} w_j u_j.

    Time: 2·samples·K·d_in FLOPs. Memory: the result and a few megabytes of gathered atoms.

    Args:
        unit: atoms u_j as rows, shape `(d_sae, d_in)`, of any norm.
        chosen: supports Λ, padded to K atoms.
        weights: weights w_j, shape `(samples, K)`; they must be 0 in the padding.

    Returns:
        The sums, shape `(samples, d_in)`, in the dtype of `unit`.
    """
    sums = unit.new_empty((len(weights), unit.shape[1]))
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(weights[part, None].to(unit), atoms, out=sums[part, None])
    return sums
