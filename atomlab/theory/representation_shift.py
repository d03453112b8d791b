"""Representation shift (theory.md 2): how far the angles between activations are from 90°.

Each figure stands beside its null: the shift that the same mean and second moment give without any further structure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.theory.inner_product import AtomicInnerProduct

_BINS = 180  # of one degree each
_TILE = 1024  # vectors at a time


@final
@dataclass(frozen=True)
class Geometry:
    """The origin and the metric in which angles are measured.

    Attributes:
        origin: the point from which vectors are seen, shape `(d,)`; zero if None.
        metric: the inner product of the angles; Euclidean if None.
    """

    origin: Float[Tensor, " d"] | None = None
    metric: AtomicInnerProduct | None = None

    def directions(self, x: Float[Tensor, "samples d"]) -> Float[Tensor, "samples d"]:
        """Computes unit vectors whose ordinary inner products are the cosines of this geometry.

        Time: 2·d² float64 FLOPs a vector in a metric. Memory: a few float64 copies of the vectors.

        Args:
            x: vectors, shape `(samples, d)`.

        Returns:
            Unit vectors, shape `(samples, d)`, float64.

        Raises:
            ValueError: x is not a matrix, has NaN or infinite entries, or has a vector at the origin, which has no
                direction.
        """
        if x.ndim != 2:
            raise ValueError(f"Vectors should be a (samples, d) matrix, got shape {tuple(x.shape)}: reshape them.")
        if not torch.isfinite(x).all():
            raise ValueError("The vectors have NaN or infinite entries: check their source.")
        seen = x.double() if self.origin is None else x.double() - self.origin.double()
        seen = seen if self.metric is None else self.metric.whiten(seen)
        norms = seen.norm(dim=1, keepdim=True)
        if (norms == 0).any():
            raise ValueError(
                f"Vector {int((norms == 0).nonzero()[0, 0])} lies at the origin and has no angle: leave it out."
            )
        return seen / norms


@final
@dataclass(frozen=True)
class AngleDistribution:
    """The distribution of the angles of pairs of vectors, in degrees.

    Attributes:
        count: number of pairs.
        total: sum of the angles, in degrees.
        squares: sum of the squared angles, in square degrees.
        histogram: number of pairs in each degree of [0°, 180°], shape `(180,)`, int64.
    """

    count: int
    total: float
    squares: float
    histogram: Int[Tensor, " degrees"]

    @property
    def mean(self) -> float:
        """Mean angle of these pairs, in degrees."""
        return self.total / self.count

    @property
    def sd(self) -> float:
        """Standard deviation of the angles of these pairs, in degrees; it does not estimate that of a larger
        population.
        """
        return max(0.0, self.squares / self.count - self.mean**2) ** 0.5

    @property
    def shift(self) -> float:
        """Representation shift |mean − 90°|, in degrees: 0 for activations that point in all directions alike."""
        return abs(self.mean - 90)


@final
@dataclass(frozen=True)
class RepresentationShift:
    """The angles of activations, beside those of vectors that share only their mean and second moment.

    Attributes:
        observed: angles of the activations.
        null: angles of their Gaussian surrogate.
    """

    observed: AngleDistribution
    null: AngleDistribution


def geometries(
    mean: Float[Tensor, " d"],
    second_moment: Float[Tensor, "d d"],
    *,
    shrinkage: float = 0.0,
    count: int | None = None,
    unembedding: Float[Tensor, "vocabulary d"] | None = None,
) -> dict[str, Callable[[], Geometry]]:
    """Lists the geometries of theory.md 1 by name, from the moments of one corpus.

    `euclidean` is seen from zero; `centred` is Euclidean, seen from the mean; `mahalanobis` is seen from the mean in
    the inverse covariance; `aip` is the atomic inner product, seen from zero; `causal` (only with an unembedding) is
    Cov(γ), seen from zero. The causal inner product (Park et al. 2024, arXiv:2311.03658, theorem 3.4) is uᵀ Cov(γ)⁻¹ v
    on unembedding vectors γ; activations live in their dual space, where it is uᵀ Cov(γ) v.

    A geometry is made only when it is called, so one that these activations do not have costs none of the others:
    outputs of a LayerNorm lie in a hyperplane, so their covariance is singular, though their second moment is not.
    Time: O(d³) for each metric made, and 2·vocabulary·d² FLOPs for Cov(γ). Memory: O(d²) and a float64 copy of γ.

    Args:
        mean: mean activation, shape `(d,)`.
        second_moment: uncentred second moment E[x xᵀ], shape `(d, d)`.
        shrinkage: λ ≥ 0 of `AtomicInnerProduct.from_second_moment`.
        count: number of vectors from which the moments were computed; None if unknown.
        unembedding: unembedding vectors γ as rows, shape `(vocabulary, d)`; no `causal` geometry if None.

    Returns:
        A function without arguments for each name. When called, it makes the geometry, or raises a ValueError if the
        matrix of its metric has no inverse (moments of rank below d at shrinkage 0).
    """

    def in_inverse_covariance() -> Geometry:
        covariance = second_moment.double() - torch.outer(mean.double(), mean.double())
        free = None if count is None else count - 1
        return Geometry(mean, AtomicInnerProduct.from_second_moment(covariance, shrinkage=shrinkage, count=free))

    def in_atomic_inner_product() -> Geometry:
        return Geometry(None, AtomicInnerProduct.from_second_moment(second_moment, shrinkage=shrinkage, count=count))

    found = {
        "euclidean": Geometry,
        "centred": partial(Geometry, mean),
        "mahalanobis": in_inverse_covariance,
        "aip": in_atomic_inner_product,
    }
    if unembedding is not None:
        found["causal"] = lambda: Geometry(None, AtomicInnerProduct(torch.cov(unembedding.double().T)))
    return found


@torch.no_grad()
def angle_distribution(
    x: Float[Tensor, "samples d"],
    geometry: Geometry | None = None,
    others: Float[Tensor, "partners d"] | None = None,
) -> AngleDistribution:
    """Computes the angles of all pairs of distinct rows of x, or of every row of x with every row of `others`.

    Time: samples²·d float64 FLOPs, or 2·samples·partners·d with `others`. Memory: an array of shape `(1024, samples)`
    beside a float64 copy of the vectors.

    Args:
        x: vectors, shape `(samples, d)`.
        geometry: origin and metric of the angles; Euclidean, seen from zero, if None.
        others: partners of the vectors, shape `(partners, d)`; if None, pairs are formed within x.

    Returns:
        The distribution of the angles in degrees; exact up to float64 rounding.

    Raises:
        ValueError: there is no pair, or `Geometry.directions` refuses the vectors.

    >>> angle_distribution(torch.eye(3)).mean
    90.0
    """
    geometry = geometry or Geometry()
    rows = geometry.directions(x)
    columns = rows if others is None else geometry.directions(others)
    sums, pairs = torch.zeros(2, dtype=torch.float64), 0
    histogram = torch.zeros(_BINS, dtype=torch.int64)
    for start in range(0, len(rows), _TILE):
        tile = rows[start : start + _TILE]
        first = start if others is None else 0
        cosines = (tile @ columns[first:].T).clamp_(-1, 1)
        if others is None:
            cosines = cosines[torch.ones_like(cosines, dtype=torch.bool).triu_(1)]
        angles = cosines.arccos_().rad2deg_()
        sums += torch.stack([angles.sum(), angles.square().sum()]).cpu()
        histogram += torch.histc(angles, _BINS, 0, 180).to("cpu", torch.int64)
        pairs += angles.numel()
    if not pairs:
        raise ValueError(f"Angles need at least one pair of vectors, got {len(x)} vectors: give more.")
    total, squares = sums.tolist()
    return AngleDistribution(pairs, total, squares, histogram)


@torch.no_grad()
def gaussian_surrogate(
    x: Float[Tensor, "samples d"], generator: torch.Generator | None = None
) -> Float[Tensor, "samples d"]:
    """Draws as many vectors as x has, with exactly its mean and second moment and no other structure.

    x̃ = m + √N·Q·Σ^½, with m the mean, Σ the covariance, N the number of vectors and Q `(N, rank)` the orthonormal
    factor of a Gaussian matrix, orthogonal to the constant vector. It is Gaussian in the limit N ≫ d. A metric
    estimated from it is the one estimated from x, so in-sample identities hold for it too. Time: O(N·d²). Memory: four
    float64 copies of x.

    Args:
        x: vectors, shape `(samples, d)`.
        generator: source of randomness on the CPU; the global one if None.

    Returns:
        The surrogate, shape `(samples, d)`, float64; its moments are exact up to rounding.

    Raises:
        ValueError: there are fewer than two vectors.
    """
    n, x = len(x), x.double()
    if n < 2:
        raise ValueError(f"A surrogate needs at least 2 vectors, got {n}: give more.")
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / n)
    kept = values > values[-1] * x.shape[1] * torch.finfo(torch.float64).eps
    scales, axes = values[kept].sqrt(), vectors[:, kept]
    # Drawn on the CPU, like the generator, and then moved to the device of x.
    noise = torch.randn(n, len(scales), generator=generator, dtype=torch.float64).to(x)
    basis = torch.linalg.qr(noise - noise.mean(0))[0]
    return mean + n**0.5 * (basis * scales) @ axes.T


def representation_shift(
    x: Float[Tensor, "samples d"],
    measured_in: Mapping[str, Geometry],
    *,
    generator: torch.Generator | None = None,
) -> dict[str, RepresentationShift]:
    """Computes the angles of x in each geometry, beside those of one Gaussian surrogate of x in the same geometry.

    In the atomic inner product of x's own moments a mean near 90° is an identity; only a geometry of other data says
    something (theory.md 1). Time: twice that of `angle_distribution` for each geometry. Memory: that of
    `angle_distribution` and of `gaussian_surrogate`.

    Args:
        x: vectors, shape `(samples, d)`.
        measured_in: geometries by name.
        generator: source of randomness of the surrogate, on the CPU; the global one if None.

    Returns:
        Observed and null angles for the name of each geometry, in degrees.

    Raises:
        ValueError: there are fewer than two vectors, or `Geometry.directions` refuses them.
    """
    null = gaussian_surrogate(x, generator)
    return {
        name: RepresentationShift(angle_distribution(x, geometry), angle_distribution(null, geometry))
        for name, geometry in measured_in.items()
    }
