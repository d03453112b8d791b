"""theory.md 4: the curve's bounds hold the exact constants; verdicts; isometry of the data's own codes."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import (
    AtomicInnerProduct,
    babel_unique_certified,
    coherence_statistics,
    empirical_isometry,
    isometry_ratios,
    restricted_isometry_bounds,
    restricted_isometry_curve,
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 9), d=st.integers(2, 12), beyond=st.integers(0, 3))
def test_the_curve_holds_the_exact_constants(seed: int, n: int, d: int, beyond: int) -> None:
    dictionary = gaussian(n, d, seed=seed)
    curve = restricted_isometry_curve(dictionary, n + beyond, samples=4, starts=2)
    assert curve.lower[0] == curve.lower[1] == curve.upper[0] == curve.upper[1] == 0
    assert (curve.lower.diff() >= 0).all()
    for k in range(2, n + 1):
        exact = restricted_isometry_bounds(dictionary, k)
        assert exact.exact
        assert curve.lower[k] <= exact.lower + 1e-9
        assert exact.lower <= curve.upper[k] + 1e-9
    assert (curve.lower[n:] == curve.lower[n]).all()


def test_pairs_are_exact_and_orthonormal_atoms_have_none() -> None:
    dictionary = gaussian(40, 10)
    mu = coherence_statistics(dictionary).coherence
    curve = restricted_isometry_curve(dictionary, 2)
    assert curve.lower[2] == pytest.approx(mu, abs=1e-9)
    assert curve.upper[2] == pytest.approx(mu, abs=1e-9)
    flat = restricted_isometry_curve(torch.eye(6), 4)
    assert flat.lower.abs().max() <= 1e-12
    assert flat.upper.abs().max() <= 1e-12


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), d=st.sampled_from([4, 30, 200]))
def test_verdicts_part_the_samples_and_certified_uniqueness_is_level_2a(seed: int, d: int) -> None:
    dictionary = gaussian(12, d, seed=seed)
    sizes = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    curve = restricted_isometry_curve(dictionary, 8, samples=4, starts=4)
    statistics = coherence_statistics(dictionary, k=11)
    for threshold in (0.5**0.5, 1.0):
        verdict = curve.verdicts(sizes, threshold)
        stacked = torch.stack([verdict.certified, verdict.failed, verdict.undecided]).int().sum(0)
        assert stacked.tolist() == [0, 1, 1, 1, 1, 1, 1]
        assert not verdict.certified[5:].any()  # 2K = 10, 12 lie beyond the curve
        for k in range(1, 5):  # failed: the exact constant is at or above the threshold; certified: below
            exact = restricted_isometry_bounds(dictionary, 2 * k).lower
            if verdict.certified[k]:
                assert exact < threshold
            if verdict.failed[k]:
                assert exact >= threshold - 1e-9
    unique = curve.verdicts(sizes, 1.0).certified
    assert torch.equal(unique[:5], babel_unique_certified(sizes, statistics)[:5])


def test_more_atoms_than_dimensions_fail() -> None:
    curve = restricted_isometry_curve(gaussian(50, 4), 10)
    assert (curve.lower[5:] >= 1).all()
    assert curve.verdicts(torch.tensor([3])).failed.all()
    with pytest.raises(ValueError, match="K=-1"):
        restricted_isometry_curve(gaussian(50, 4), -1)


def metric_norms(dictionary: torch.Tensor, s: AtomicInnerProduct | None) -> torch.Tensor:
    return dictionary.norm(dim=1) if s is None else s.norm(dictionary)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 12), d=st.integers(2, 8), metric=st.booleans())
def test_isometry_of_codes_is_its_definition_and_within_its_bounds(seed: int, n: int, d: int, metric: bool) -> None:
    x, dictionary = gaussian(50, d, seed=seed + 1), gaussian(n, d, seed=seed)
    s = AtomicInnerProduct.from_second_moment(x.T @ x / 50) if metric else None
    codes = gaussian(10, n, seed=seed + 2) * (gaussian(10, n, seed=seed + 3) > 0.8)
    codes[0] = 0
    found = empirical_isometry(codes, dictionary, s)
    known = metric_norms(dictionary, s)
    torch.testing.assert_close(isometry_ratios(codes, dictionary, s, norms=known), found.ratio, equal_nan=True)
    matrix = torch.eye(d, dtype=torch.float64) if s is None else s.matrix
    norms = (dictionary @ matrix * dictionary).sum(1).sqrt()
    unit = dictionary / norms[:, None]
    for code, ratio, constant in zip(codes * norms, found.ratio, found.constant, strict=True):
        inside = code.nonzero()[:, 0]
        if len(inside) == 0:
            assert ratio.isnan()
            assert constant.isnan()
            continue
        y = code @ unit
        assert ratio.item() == pytest.approx((y @ matrix @ y / code.square().sum()).item(), abs=1e-9)
        values = torch.linalg.eigvalsh(unit[inside] @ matrix @ unit[inside].T)
        assert constant.item() == pytest.approx(max(values[-1] - 1, 1 - values[0]).item(), abs=1e-9)
        assert abs(ratio - 1) <= constant + 1e-9
        assert constant <= restricted_isometry_bounds(dictionary, len(inside), s).lower + 1e-9


def test_supports_beyond_the_largest_are_not_solved() -> None:
    codes = torch.tensor([[1.0, 1, 1], [1, 0, 0]]).double()
    found = empirical_isometry(codes, torch.eye(3).double(), largest=2)
    assert found.constant.tolist() == [float("inf"), 0]
    assert found.ratio.tolist() == [1, 1]


def test_combinations_of_a_simplex() -> None:
    """Vertices of a simplex have G = −1/d off the diagonal, so δ_K = (K − 1)/d in closed form."""
    d = 5
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    vertices = centred @ torch.linalg.svd(centred)[2][:d].T
    curve = restricted_isometry_curve(vertices, d + 1)
    expected = torch.tensor([0.0] + [(k - 1) / d for k in range(1, d + 2)], dtype=torch.float64)
    torch.testing.assert_close(curve.lower, expected)
    torch.testing.assert_close(curve.upper, expected)
    for support in combinations(range(d + 1), 3):
        codes = torch.zeros(1, d + 1, dtype=torch.float64)
        codes[0, list(support)] = 1
        assert empirical_isometry(codes, vertices).constant.item() == pytest.approx(2 / d)
