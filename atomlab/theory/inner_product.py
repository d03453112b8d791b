"""The atomic inner product ⟨u, v⟩_S = uᵀ S v (theory.md 1; Hu et al., arXiv:2509.20784)."""

import warnings
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast

_CONDITION_LIMIT = 1e7  # beyond it whitening in float32 loses all but the first digits


@final
class AtomicInnerProduct:
    """A metric S on activations, symmetric positive definite, kept in float64; treat as immutable.

    Vectors are whitened as W x with W = S^½ (symmetric), so that ⟨u, v⟩_S is the ordinary inner product of whitened
    vectors. Results have the input's dtype; the matrices are computed in float64 and rounded to it.

    Time: O(d³) once, in float64; 2·d² FLOPs a vector whitened. Memory: four (d, d) in float64.

    Args:
        matrix: S (d, d).
        shrinkage: λ used to make it, for the record.

    Raises:
        ValueError: not a finite, symmetric, positive definite square matrix.
    """

    def __init__(self, matrix: Float[Tensor, "d d"], *, shrinkage: float = 0.0) -> None:
        _check_symmetric(matrix)
        values, vectors = torch.linalg.eigh(matrix.double())
        self._take(matrix.double(), values, vectors, shrinkage)

    def _take(self, matrix: Tensor, values: Tensor, vectors: Tensor, shrinkage: float) -> None:
        """S and its decomposition, eigenvalues rising, all in float64."""
        self.matrix, self._values, self._vectors, self.shrinkage = matrix, values, vectors, shrinkage
        if values[0] <= 0 or not values[-1].isfinite():
            raise ValueError(f"The metric S is not positive definite: its smallest eigenvalue is {values[0]:.3g}.")
        if self.condition_number > _CONDITION_LIMIT:
            remedy = len(matrix) / 1e6 * float(self._relative_top)
            warnings.warn(
                f"The metric S has condition number {self.condition_number:.2g}: float32 results may be wrong in "
                f"all digits; compute in float64 or use a shrinkage of {remedy:.1g}.",
                stacklevel=3,
            )

    @classmethod
    def from_second_moment(
        cls, second_moment: Float[Tensor, "d d"], *, shrinkage: float = 0.0, count: int | None = None
    ) -> "AtomicInnerProduct":
        """S = (C + λ·(tr C / d)·I)⁻¹ of the uncentred second moment C = E[x xᵀ]. Cost: O(d³) time, O(d²) memory,
        float64.

        Args:
            second_moment: C.
            shrinkage: λ ≥ 0.
            count: the number of vectors C was taken over, if known.

        Raises:
            ValueError: at λ = 0, C of rank below d (or fewer than d vectors).
        """
        _check_symmetric(second_moment)
        if shrinkage < 0:
            raise ValueError(f"A shrinkage of {shrinkage} is negative: use 0 or more.")
        moment, d = second_moment.double(), len(second_moment)
        values, vectors = torch.linalg.eigh(moment)
        rank = int((values > values[-1] * d * torch.finfo(torch.float64).eps).sum())
        if count is not None:
            rank = min(rank, count)
        if rank < d and shrinkage == 0:
            raise ValueError(
                f"The second moment has rank {rank} of {d} and no inverse: use more vectors "
                "or a shrinkage such as 1e-3."
            )
        shrunk = values.clamp(min=0) + shrinkage * values.mean()
        made = cls.__new__(cls)  # its decomposition is known: that of C, upside down
        made._take((vectors / shrunk) @ vectors.T, (1 / shrunk).flip(0), vectors.flip(1), shrinkage)
        return made

    @classmethod
    def from_dictionary(
        cls, dictionary: Float[Tensor, "d_sae d_in"], *, shrinkage: float = 0.0
    ) -> "AtomicInnerProduct":
        """S = (W_decᵀ W_dec)⁻¹, the paper's other definition (its S = c²(D Dᵀ)⁻¹ with atoms as columns). It changes
        when single atoms are rescaled. Time: 2·d_sae·d_in² FLOPs and O(d_in³), float64; memory: a float64 copy of the
        dictionary.

        Raises:
            ValueError: atoms that do not span the space, at λ = 0.
        """
        atoms = dictionary.double()
        return cls.from_second_moment(atoms.T @ atoms, shrinkage=shrinkage)

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue of S."""
        return float(self._values[-1] / self._values[0])

    @property
    def _relative_top(self) -> Tensor:
        """Largest eigenvalue of S⁻¹ over its mean, over d."""
        inverse = 1 / self._values
        return inverse.max() / inverse.sum()

    @cached_property
    def whitening(self) -> Float[Tensor, "d d"]:
        """W = S^½, float64."""
        return (self._vectors * self._values.sqrt()) @ self._vectors.T

    @cached_property
    def unwhitening(self) -> Float[Tensor, "d d"]:
        """W⁻¹ = S^−½, float64."""
        return (self._vectors / self._values.sqrt()) @ self._vectors.T

    @no_autocast()
    def whiten(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """W x of each row, in the dtype of x; of 16 bits, in float32 and then rounded. Time: 2·d² FLOPs a row."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide @ self.whitening.to(wide)).to(x.dtype)

    def inner(self, u: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """⟨u, v⟩_S, row by row. Time: 4·d² FLOPs a row."""
        return (self.whiten(u) * self.whiten(v)).sum(-1)

    def norm(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """‖u‖_S of each row. Time: 2·d² FLOPs a row."""
        return self.whiten(u).norm(dim=-1)

    def cosine(self, u: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """cos_S(u, v) = ⟨u, v⟩_S / (‖u‖_S ‖v‖_S), row by row; NaN where a vector is zero."""
        return self.inner(u, v) / (self.norm(u) * self.norm(v))


def disagreement(a: AtomicInnerProduct, b: AtomicInnerProduct) -> float:
    """min over c of ‖A − cB‖_F / ‖A‖_F = sin of the angle between the matrices: 0 if equal up to scale, at most 1;
    symmetric; exact, float64. Time and memory O(d²).
    """
    cosine = (a.matrix * b.matrix).sum() / (a.matrix.norm() * b.matrix.norm())
    return float((1 - cosine.square()).clamp(min=0).sqrt())


def _check_symmetric(matrix: Tensor) -> None:
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(f"Expected a square matrix, got shape {tuple(matrix.shape)}.")
    if not torch.isfinite(matrix).all():
        raise ValueError("The matrix has NaN or infinite entries: check the activations it was computed from.")
    if (matrix - matrix.T).abs().max() > 1e-6 * matrix.abs().max():
        raise ValueError("The matrix is not symmetric: expected a second moment E[x xᵀ] or a metric.")
