"""Representation shift (theory.md 2): how far the angles between activations are from 90°, in a geometry, beside the
shift that the same mean and second moment give without any further structure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.theory.inner_product import AtomicInnerProduct

_BINS = 180  # of one degree
_TILE = 1024  # vectors at a time


@final
@dataclass(frozen=True)
class Geometry:
    """Where angles are measured: seen from `origin` (zero if None), in `metric` (Euclidean if None)."""

    origin: Float[Tensor, " d"] | None = None
    metric: AtomicInnerProduct | None = None

    def directions(self, x: Float[Tensor, "samples d"]) -> Float[Tensor, "samples d"]:
        """Unit vectors whose ordinary inner products are the cosines; float64.

        Raises:
            ValueError: NaN or infinite entries, or a vector at the origin, which has no direction.
        """
        if x.ndim != 2 or not torch.isfinite(x).all():
            raise ValueError(
                f"Expected finite (samples, d) vectors; got shape {tuple(x.shape)}, NaN or infinite entries."
            )
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
    """Angles of pairs of vectors, in degrees.

    Attributes:
        count: pairs.
        total, squares: Σ angle and Σ angle², float64.
        histogram: pairs in each degree of [0°, 180°] (180,), int64.
    """

    count: int
    total: float
    squares: float
    histogram: Int[Tensor, " degrees"]

    @property
    def mean(self) -> float:
        """Degrees."""
        return self.total / self.count

    @property
    def sd(self) -> float:
        """Degrees; of these pairs, not an estimate of another population's."""
        return max(0.0, self.squares / self.count - self.mean**2) ** 0.5

    @property
    def shift(self) -> float:
        """|mean − 90°|: 0 for activations that point in all directions alike."""
        return abs(self.mean - 90)


@final
@dataclass(frozen=True)
class RepresentationShift:
    """Angles of the activations, and of vectors that have nothing but their mean and second moment."""

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
    """The geometries of theory.md 1 by name, from one corpus' moments: `euclidean`; `centred` (Euclidean, from the
    mean); `mahalanobis` (from the mean, in the inverse covariance); `aip` (the atomic inner product, from zero); and
    `causal`, given the unembedding vectors γ: Cov(γ), from zero. Each is made when it is called, so that one that these
    activations do not have costs none of the others: the output of a LayerNorm lies in a hyperplane, so its covariance
    is singular, though its second moment is not.

    The causal inner product (Park et al. 2024, arXiv:2311.03658, theorem 3.4) is uᵀ Cov(γ)⁻¹ v on unembedding vectors;
    activations live in their dual space, where it is uᵀ Cov(γ) v. Time O(d³) each, and 2·vocabulary·d² FLOPs for Cov(γ);
    memory O(d²) and a float64 copy of γ.

    Raises:
        ValueError: when it is made, moments of rank below d at shrinkage 0.
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
    """Angles of all pairs of distinct rows of x, or of every row of x with every row of `others`. Exact, float64.

    Time: samples²·d FLOPs (or 2·samples·partners·d); memory: (1024, samples) beside a float64 copy of x.

    Raises:
        ValueError: no pair, or what `Geometry.directions` refuses.

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
        raise ValueError(f"Angles are between pairs of vectors: got {len(x)} vectors.")
    total, squares = sums.tolist()
    return AngleDistribution(pairs, total, squares, histogram)


@torch.no_grad()
def gaussian_surrogate(
    x: Float[Tensor, "samples d"], generator: torch.Generator | None = None
) -> Float[Tensor, "samples d"]:
    """As many vectors with exactly the mean and the second moment of x and nothing else: a Gaussian sample, moment
    matched. A metric estimated from it is the one estimated from x, so in-sample identities hold for it too.

    x̃ = m + √N·Q·Σ^½ with Q (N, rank) the orthonormal factor of a Gaussian matrix, orthogonal to the constant; it is
    Gaussian in the limit N ≫ d. Float64. Time O(N·d²); memory of four copies of x.

    Raises:
        ValueError: fewer than two vectors.
    """
    n, x = len(x), x.double()
    if n < 2:
        raise ValueError(f"A surrogate needs at least 2 vectors, got {n}.")
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / n)
    kept = values > values[-1] * x.shape[1] * torch.finfo(torch.float64).eps
    scales, axes = values[kept].sqrt(), vectors[:, kept]
    # Drawn on the generator's device, which need not be x's.
    noise = torch.randn(n, len(scales), generator=generator, dtype=torch.float64).to(x)
    basis = torch.linalg.qr(noise - noise.mean(0))[0]
    return mean + n**0.5 * (basis * scales) @ axes.T


def representation_shift(
    x: Float[Tensor, "samples d"],
    measured_in: Mapping[str, Geometry],
    *,
    generator: torch.Generator | None = None,
) -> dict[str, RepresentationShift]:
    """Angle distributions of x in each geometry, beside those of one `gaussian_surrogate` of x in the same geometry.

    In the atomic inner product of x's own moments a mean near 90° is an identity; only a geometry from other data has
    content (theory.md 1). Time: that of `angle_distribution`, twice a geometry; memory: its, and the surrogate's.
    """
    null = gaussian_surrogate(x, generator)
    return {
        name: RepresentationShift(angle_distribution(x, geometry), angle_distribution(null, geometry))
        for name, geometry in measured_in.items()
    }
