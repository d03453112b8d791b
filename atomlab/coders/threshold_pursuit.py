"""Non-negative codes in a few stages: a threshold chooses the atoms that join, and least squares fits the values."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.fitting import UnitAtoms, fit_values, sparse_code, stacked
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import kernels_for
from atomlab.sae.sparse_code import entry_rows
from atomlab.theory import AtomicInnerProduct
from atomlab.theory.supports import check_vectors


@final
@dataclass(frozen=True)
class ThresholdPursuit:
    """The settings of a threshold pursuit, as `calibrate_threshold_pursuit` chooses them.

    Attributes:
        first_scale: c ≥ 0, by which the first stage multiplies the TSAE's own thresholds.
        thresholds: τ ≥ 0 of each later stage, in units of the S-norm of the activations.
        most_joining: largest number of atoms that join a sample's support in one stage, the best of them.

    Raises:
        ValueError: the scale or a threshold is negative or NaN, or no atom may join.
    """

    first_scale: float
    thresholds: tuple[float, ...] = ()
    most_joining: int = 128

    def __post_init__(self) -> None:
        if not all(value >= 0 for value in (self.first_scale, *self.thresholds)) or self.most_joining < 1:
            raise ValueError(
                "A threshold pursuit needs a scale and thresholds of 0 or more and at least one joining atom, got "
                f"{self}: choose them with `calibrate_threshold_pursuit`."
            )

    @property
    def stages(self) -> int:
        """Number of stages, the first one included."""
        return 1 + len(self.thresholds)


@torch.no_grad()
@no_autocast()
def threshold_pursuit(
    sae: ThresholdSAE,
    x: Float[Tensor, "samples d_in"],
    pursuit: ThresholdPursuit,
    metric: AtomicInnerProduct | None = None,
    *,
    block: int = 1024,
) -> Tensor:
    """Codes activations on the atoms of a TSAE in stages, with all values refitted after each.

    First stage: the latents with z > c·θ form the support. Each later stage: the atoms outside the support whose
    correlation ⟨r, d_j⟩_S / ‖d_j‖_S with the residual r = x − b_dec − f W_dec exceeds τ join it. After each stage the
    values f ≥ 0 minimise ‖x − b_dec − f W_dec‖_S² on the support, and atoms with the value 0 leave it; they may join
    again. The residual never grows from one stage to the next.

    Args:
        sae: a TSAE of raw activations. Its encoder and thresholds choose the first support only.
        x: raw activations, shape `(samples, d_in)`, of any floating dtype.
        pursuit: scale and thresholds.
        metric: S, that with which the pursuit was calibrated; None means Euclidean.
        block: number of samples that are coded at a time.

    Returns:
        Codes f, a CSR tensor of shape `(samples, d_sae)` in the dtype of x, float32 at least, with ascending columns
        and no stored zeros. The values belong to `sae.W_dec` as it is, whatever its norms.

    Raises:
        ValueError: activations, TSAE and metric do not fit each other or are not finite.

    Cost: one product of the samples with the dictionary a stage, and 2·samples·K²·d_in float64 FLOPs a stage for K
    atoms in the support. Memory: a `(block, d_sae)` matrix at most, supports of at most `most_joining` atoms more a
    stage, and two copies of the dictionary.

    Source: Donoho, Tsaig, Drori and Starck, IEEE Transactions on Information Theory 58 (2012), with thresholds from
    data and non-negative values.
    """
    check_vectors(x, sae.W_dec)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    atoms = UnitAtoms.of(sae.W_dec, metric, x.dtype)
    operand = kernels_for(x.device).operand
    latents, unit = operand(sae.W_enc.T.contiguous()), operand(atoms.rows)
    zeros, ones, most = atoms.rows.new_zeros(sae.d_sae), atoms.rows.new_ones(sae.d_sae), pursuit.most_joining
    parts = []
    for part in x.split(block):
        target = atoms.whiten(part - sae.b_dec.to(part))
        own = operand(own_input(sae, part))
        codes = fit_values(atoms, target, _joining(own, latents, sae.b_enc, pursuit.first_scale, sae.threshold, most))
        for level in pursuit.thresholds:
            residual = operand(atoms.residual(target, codes))
            joining = _joining(residual, unit, zeros, level, ones, most)
            codes = fit_values(atoms, target, union(codes, joining))
        parts.append(codes)
    return atoms.as_given(stacked(parts))


def own_input(sae: ThresholdSAE, x: Tensor) -> Tensor:
    """Gives activations as the TSAE's own encoder takes them, in its dtype."""
    own = x.to(sae.W_dec.dtype)
    return own - sae.b_dec if sae.apply_b_dec_to_input else own


def _joining(x: Tensor, latents: Tensor, bias: Tensor, factor: float, levels: Tensor, most: int) -> Tensor:
    """Finds the atoms with z_j = x·w_j + b_j > factor·level_j, of each sample the `most` with the largest z_j/level_j,
    as CSR of ones."""
    z, entries = kernels_for(x.device).find(x, latents, bias, factor * levels, 0.0)
    scores = z / levels.index_select(0, entries.columns)
    return best_of_each(entries.rows, entries.columns, scores, most, (entries.batch, entries.d_sae))


def best_of_each(rows: Tensor, columns: Tensor, scores: Tensor, most: int, shape: tuple[int, int]) -> Tensor:
    """Keeps of each sample the entries with the `most` largest scores.

    Args:
        rows: sample of each entry, shape `(entries,)`.
        columns: latent of each entry, shape `(entries,)`.
        scores: shape `(entries,)`, not NaN.
        most: largest number of entries of a sample.
        shape: number of samples and of latents.

    Returns:
        A CSR tensor with the value 1, float64, at the entries that are kept.
    """
    if len(rows) and int(torch.bincount(rows).max()) > most:
        order = scores.argsort(descending=True, stable=True)
        order = order[rows[order].argsort(stable=True)]
        counts = torch.bincount(rows, minlength=shape[0])
        starts = (counts.cumsum(0) - counts)[rows[order]]
        kept = order[torch.arange(len(order), device=order.device) - starts < most]
        rows, columns = rows[kept], columns[kept]
    return sparse_code(rows, columns, torch.ones_like(rows, dtype=torch.float64), shape)


def union(codes: Tensor, joining: Tensor) -> Tensor:
    """Unites the supports of two CSR tensors of one shape.

    Returns:
        A CSR tensor with the value 1, float64, where either has a stored entry.
    """
    keys = torch.cat([_keys(codes), _keys(joining)]).unique()
    return sparse_code(
        keys // codes.shape[1],
        keys % codes.shape[1],
        torch.ones_like(keys, dtype=torch.float64),
        (codes.shape[0], codes.shape[1]),
    )


def _keys(codes: Tensor) -> Tensor:
    return entry_rows(codes) * codes.shape[1] + codes.col_indices()
