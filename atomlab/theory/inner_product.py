"""The atomic inner product ⟨u, v⟩_S = uᵀ S v (theory.md 1; Hu et al., arXiv:2509.20784)."""

import warnings
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast

_CONDITION_LIMIT = 1e7  # beyond it whitening in float32 loses all but the first digits
_ROUNDING = torch.finfo(torch.float32).eps ** 2  # of variances of float32 numbers, relative


@final
class AtomicInnerProduct:
    """A metric S on activations: symmetric, positive definite, kept in float64. Treat it as immutable.

    Vectors are whitened as W x with the symmetric W = S^½, so that ⟨u, v⟩_S is the ordinary inner product of whitened
    vectors. The matrices are computed in float64 and rounded to the dtype of the vectors, which is that of the results.
    A condition number above 1e7 gives a warning that names a shrinkage. Time: O(d³) once, in float64, and 2·d² FLOPs
    for each whitened vector. Memory: four float64 `(d, d)` matrices.

    Args:
        matrix: S, shape `(d, d)`.
        shrinkage: the λ with which S was made, kept for the record only.

    Attributes:
        matrix: S, shape `(d, d)`, float64.
        shrinkage: λ.

    Raises:
        ValueError: the matrix is not square, finite, symmetric and positive definite.
    """

    def __init__(self, matrix: Float[Tensor, "d d"], *, shrinkage: float = 0.0) -> None:
        _check_symmetric(matrix)
        values, vectors = torch.linalg.eigh(matrix.double())
        self._take(matrix.double(), values, vectors, shrinkage)

    def _take(self, matrix: Tensor, values: Tensor, vectors: Tensor, shrinkage: float) -> None:
        """Stores S and its decomposition, all in float64, with eigenvalues in rising order."""
        self.matrix, self._values, self._vectors, self.shrinkage = matrix, values, vectors, shrinkage
        if values[0] <= 0 or not values[-1].isfinite():
            raise ValueError(
                f"The metric S is not positive definite, with {values[0]:.3g} as smallest eigenvalue: estimate it from "
                "more activations or with a larger shrinkage."
            )
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
        """Makes S = (C + λ·(tr C / d)·I)⁻¹ from the uncentred second moment C = E[x xᵀ] of activations.

        Time: O(d³). Memory: O(d²). Both in float64.

        Args:
            second_moment: C, shape `(d, d)`.
            shrinkage: λ ≥ 0.
            count: number of vectors from which C was computed, an upper bound of its rank; None if unknown.

        Returns:
            The metric S; exact up to float64 rounding.

        Raises:
            ValueError: C is not square, finite and symmetric, λ is negative, S is not positive definite, or C has a
                rank below d (or was computed from fewer than d vectors) at λ = 0. Activations are float32 at best, so a
                direction counts for the rank if its variance is above d ε² of the largest, ε = 2⁻²³: below lies their rounding.
        """
        _check_symmetric(second_moment)
        if shrinkage < 0:
            raise ValueError(f"A shrinkage of {shrinkage} is negative: use 0 or more.")
        moment, d = second_moment.double(), len(second_moment)
        values, vectors = torch.linalg.eigh(moment)
        rank = int((values > values[-1] * d * _ROUNDING).sum())
        if count is not None:
            rank = min(rank, count)
        if rank < d and shrinkage == 0:
            more = "use more vectors or" if count is not None and count < d else "they lie in a subspace, so use"
            raise ValueError(
                f"The second moment has rank {rank} of {d} and no inverse: {more} a shrinkage such as 1e-3."
            )
        shrunk = values.clamp(min=0) + shrinkage * values.mean()
        made = cls.__new__(cls)  # S has the eigenvectors of C and its inverse eigenvalues
        made._take((vectors / shrunk) @ vectors.T, (1 / shrunk).flip(0), vectors.flip(1), shrinkage)
        return made

    @classmethod
    def from_dictionary(
        cls, dictionary: Float[Tensor, "d_sae d_in"], *, shrinkage: float = 0.0
    ) -> "AtomicInnerProduct":
        """Makes S = (W_decᵀ W_dec)⁻¹, shrunk as in `from_second_moment`: the paper's other definition, c²(D Dᵀ)⁻¹ with
        atoms as columns.

        It changes when single atoms are rescaled. Time: 2·d_sae·d_in² float64 FLOPs and O(d_in³). Memory: a float64
        copy of the dictionary.

        Args:
            dictionary: W_dec, atoms as rows, shape `(d_sae, d_in)`.
            shrinkage: λ ≥ 0.

        Returns:
            The metric S; exact up to float64 rounding.

        Raises:
            ValueError: the atoms do not span the space at λ = 0, or `from_second_moment` refuses their second moment.
        """
        atoms = dictionary.double()
        return cls.from_second_moment(atoms.T @ atoms, shrinkage=shrinkage)

    @property
    def condition_number(self) -> float:
        """Largest eigenvalue of S over its smallest one."""
        return float(self._values[-1] / self._values[0])

    @property
    def _relative_top(self) -> Tensor:
        """Largest eigenvalue of S⁻¹ over the sum of them all."""
        inverse = 1 / self._values
        return inverse.max() / inverse.sum()

    @cached_property
    def whitening(self) -> Float[Tensor, "d d"]:
        """W = S^½, shape `(d, d)`, symmetric, float64."""
        return (self._vectors * self._values.sqrt()) @ self._vectors.T

    @cached_property
    def unwhitening(self) -> Float[Tensor, "d d"]:
        """W⁻¹ = S^−½, shape `(d, d)`, symmetric, float64."""
        return (self._vectors / self._values.sqrt()) @ self._vectors.T

    def power(self, exponent: float) -> Float[Tensor, "d d"]:
        """Computes S^p, with the eigenvectors of S and its eigenvalues to the power p. Time: 2·d³ FLOPs.

        Args:
            exponent: p, of any sign.

        Returns:
            S^p, shape `(d, d)`, symmetric, float64: S^½ is `whitening`, S^0 the identity, S^−½ `unwhitening`.
        """
        return (self._vectors * self._values**exponent) @ self._vectors.T

    @no_autocast()
    def whiten(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Whitens each vector: W x. Time: 2·d² FLOPs a vector.

        Args:
            x: vectors, shape `(..., d)`.

        Returns:
            W x, shape `(..., d)`, in the dtype of x; for 16-bit vectors computed in float32 and rounded once.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide @ self.whitening.to(wide)).to(x.dtype)

    def inner(self, u: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Computes ⟨u, v⟩_S of each pair of vectors. Time: 4·d² FLOPs a pair.

        Args:
            u: vectors, shape `(..., d)`.
            v: vectors, shape `(..., d)`.

        Returns:
            The inner products, shape `(...)`, in the dtype of the vectors.
        """
        return (self.whiten(u) * self.whiten(v)).sum(-1)

    def norm(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Computes ‖u‖_S of each vector. Time: 2·d² FLOPs a vector.

        Args:
            u: vectors, shape `(..., d)`.

        Returns:
            The norms, shape `(...)`, in the dtype of the vectors.
        """
        return self.whiten(u).norm(dim=-1)

    def cosine(self, u: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Computes cos_S(u, v) = ⟨u, v⟩_S / (‖u‖_S ‖v‖_S) of each pair of vectors. Time: 8·d² FLOPs a pair.

        Args:
            u: vectors, shape `(..., d)`.
            v: vectors, shape `(..., d)`.

        Returns:
            The cosines, shape `(...)`, in the dtype of the vectors; NaN where a vector is zero.
        """
        return self.inner(u, v) / (self.norm(u) * self.norm(v))


def disagreement(a: AtomicInnerProduct, b: AtomicInnerProduct) -> float:
    """Computes how far two metrics are from being multiples of each other: min over c of ‖A − cB‖_F / ‖A‖_F.

    This is the sine of the angle between the two matrices. Time and memory: O(d²).

    Args:
        a: metric A.
        b: metric B, of the same width.

    Returns:
        A number in [0, 1], the same in either order: 0 for metrics that are equal up to scale; exact up to float64
        rounding.
    """
    cosine = (a.matrix * b.matrix).sum() / (a.matrix.norm() * b.matrix.norm())
    return float((1 - cosine.square()).clamp(min=0).sqrt())


def _check_symmetric(matrix: Tensor) -> None:
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(
            f"A metric or second moment should be a square (d, d) matrix, got shape {tuple(matrix.shape)}: reshape it."
        )
    if not torch.isfinite(matrix).all():
        raise ValueError("The matrix has NaN or infinite entries: check the activations it was computed from.")
    if (matrix - matrix.T).abs().max() > 1e-6 * matrix.abs().max():
        raise ValueError("The matrix is not symmetric: give a second moment E[x xᵀ] or a metric.")
