"""What codes are worth against the true ones: matched atoms, supports, and how often a certified code is the true one."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.metrics import ExplainedVariance
from atomlab.report import Row
from atomlab.theory import match_atoms
from atomlab.theory.certificate_levels import recovery_levels
from atomlab.units import Unit

_EXACT = 1e-5  # relative error of a reconstruction below which a code counts as one of the vector itself
_EQUAL = 1e-3  # largest difference of two codes that count as equal; values are about 1


@final
@dataclass(frozen=True)
class Truth:
    """Held-out vectors with the atoms and the codes that made them.

    Attributes:
        vectors: shape `(samples, d_in)`, without noise.
        dictionary: the true atoms as rows, of unit norm, shape `(features, d_in)`.
        codes: the true codes, not negative, shape `(samples, features)`.
    """

    vectors: Float[Tensor, "samples d_in"]
    dictionary: Float[Tensor, "features d_in"]
    codes: Float[Tensor, "samples features"]


@torch.no_grad()
def against_truth(unit: Unit, truth: Truth) -> Row:
    """Measures a unit against the truth, in the Euclidean metric.

    Atoms are matched one to one with the true ones (`match_atoms`), and codes are compared on matched atoms; an unmatched
    atom that fires is a mistake.

    Args:
        unit: a dictionary and its codes, not negative.
        truth: held-out vectors and where they come from.

    Returns:
        `mcc`, the mean matched cosine; `r2`; `l0`; `f1`, 2·hits / (firings + true firings) over all vectors; `true`, the share
        of vectors whose support is the true one; `certified_level_1` and `certified_level_4`, shares of the vectors with
        K ≥ 1; and for each level `true_if_certified_…`, the share of true supports among certified codes, None where no code
        is certified, `true_if_not_certified_…` among the others, and `contradictions_…` (`contradictions`).
    """
    codes = unit.encode(truth.vectors)
    codes = codes.to_dense() if codes.layout == torch.sparse_csr else codes
    own, theirs, cosines = match_atoms(unit.dictionary, truth.dictionary)
    norms = unit.dictionary.norm(dim=1)
    matched = torch.zeros_like(truth.codes)
    matched[:, theirs] = (codes * norms)[:, own]
    alone = torch.ones(unit.d_sae, dtype=torch.bool).index_fill_(0, own, False)
    mistaken = (codes[:, alone] > 0).sum(1)
    fires, should = matched > 0, truth.codes > 0
    right = (fires == should).all(1) & (mistaken == 0)
    hits = int((fires & should).sum())
    variance = ExplainedVariance(truth.vectors.shape[1])
    x_hat = unit.decode(codes)
    variance.update(truth.vectors, x_hat)
    row: Row = {
        "unit": unit.name,
        "mcc": float(cosines.mean()),
        "r2": float(variance.compute()),
        "l0": float((codes > 0).sum(1).double().mean()),
        "f1": 2 * hits / max(1, int((codes > 0).sum()) + int(should.sum())),
        "true": float(right.double().mean()),
        "samples": len(codes),
    }
    levels = recovery_levels(codes, unit.dictionary, solve=False)
    for level, holds in ((1, levels.coherence), (4, levels.dual_certificate)):
        active = levels.sizes > 0
        row[f"certified_level_{level}"] = _share(holds, active)
        row[f"true_if_certified_{level}"] = _share(right, active & holds)
        row[f"true_if_not_certified_{level}"] = _share(right, active & ~holds)
        row[f"contradictions_{level}"] = int(contradictions(unit, codes, x_hat, holds, truth, level).sum())
    return row


def contradictions(
    unit: Unit, codes: Tensor, x_hat: Tensor, certified: Bool[Tensor, " samples"], truth: Truth, level: int
) -> Bool[Tensor, " samples"]:
    """Finds certificates that the true code refutes, of which there may be none.

    A certificate says that a code is the only one of its vector x̂ with so few atoms (level 1) or with so small an ℓ1 norm
    (level 4), on its own dictionary. The true code is another one of the same vector if the dictionary is the true one and x̂
    is x. It then refutes the certificate if it differs and has no more atoms, or no larger ℓ1 norm.

    Args:
        unit: the dictionary; if it is not the true one, nothing is refuted.
        codes: its codes, not negative, shape `(samples, d_sae)`.
        x_hat: their reconstructions, shape `(samples, d_in)`.
        certified: verdict of each code.
        truth: the vectors and the true codes.
        level: 1 or 4.

    Returns:
        Which certificates are refuted, shape `(samples,)`.
    """
    none = torch.zeros_like(certified)
    if unit.dictionary.shape != truth.dictionary.shape or not torch.equal(unit.dictionary, truth.dictionary):
        return none
    error = (truth.vectors - x_hat).norm(dim=1) / truth.vectors.norm(dim=1)
    other = (codes - truth.codes).abs().amax(1) > _EQUAL
    if level == 1:
        no_worse = (truth.codes > 0).sum(1) <= (codes > 0).sum(1)
    else:
        no_worse = truth.codes.double().sum(1) <= codes.double().sum(1)
    return certified & (error < _EXACT) & other & no_worse


def _share(holds: Tensor, among: Tensor) -> float | None:
    return float(holds[among].double().mean()) if bool(among.any()) else None
