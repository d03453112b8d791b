"""theory.md 5: all five levels together on thousands of dictionaries: each implies the next; certified codes are what
the solver returns.
"""

from itertools import pairwise

import pytest
import torch
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import (
    MARGIN,
    AtomicInnerProduct,
    basis_pursuit,
    coherence_statistics,
    dual_certificates,
    exact_recovery_coefficient,
    exact_recovery_coefficients,
    recovery_levels,
    solved_recovery,
)
from tests.theory.examples import KINDS, example


@pytest.mark.parametrize("kind", KINDS)
def test_levels_imply_one_another_on_300_dictionaries_of_a_kind(kind: str) -> None:
    """K from 0 to 6 on each. Every code that is certified is solved for, in the problem that it is certified for."""
    certified = torch.zeros(6, dtype=torch.int64)
    for seed in range(300):
        dictionary, codes = example(seed, 4 + seed % 21, 3 + 7 * seed % 22, kind, samples=7)
        levels = recovery_levels(codes, dictionary, one_sided=False, solve=False)
        one_sided = dual_certificates(codes, dictionary) < 1 - MARGIN
        chain = (levels.coherence, levels.babel_recovery, levels.exact_recovery, levels.dual_certificate, one_sided)
        for stronger, weaker in (*pairwise(chain), (levels.babel_recovery, levels.babel_unique)):
            assert not (stronger & ~weaker).any(), seed
        nonnegative = bool(seed % 2)  # the two problems in turn
        promised = codes[one_sided if nonnegative else levels.dual_certificate]
        assert solved_recovery(promised, dictionary, nonnegative=nonnegative).all(), seed
        certified += torch.stack([*chain, levels.babel_unique]).sum(1)
    assert (certified[0 if kind in ("plain", "low", "nearly orthonormal") else 2 : 5] > 0).all()  # none of it is empty


@settings(deadline=None, max_examples=25)
@example_of(seed=3413, n=19, d=15, kind="correlated")  # scikit-learn's path raises here
@example_of(seed=3414, n=19, d=15, kind="near twins")  # a linear programme at the usual tolerances confuses the twins
@given(seed=st.integers(0, 100_000), n=st.integers(4, 24), d=st.integers(3, 24), kind=st.sampled_from(KINDS))
def test_levels_are_ordered_and_certified_codes_are_solved_for(seed: int, n: int, d: int, kind: str) -> None:
    dictionary, codes = example(seed, n, d, kind)
    statistics = coherence_statistics(dictionary, k=11)
    for one_sided in (True, False):
        levels = recovery_levels(codes, dictionary, one_sided=one_sided, statistics=statistics)
        assert levels.solved is not None
        for stronger, weaker in (
            (levels.coherence, levels.babel_recovery),
            (levels.babel_recovery, levels.babel_unique),
            (levels.babel_recovery, levels.exact_recovery),
            (levels.exact_recovery, levels.dual_certificate),
            (levels.dual_certificate, levels.solved),
        ):
            assert not (stronger & ~weaker).any()
        rates = levels.rates()
        order = ("coherence", "babel_recovery", "exact_recovery", "dual_certificate", "solved")
        assert [rates[name] for name in order] == sorted(rates[name] for name in order)
        assert not levels.solved[levels.sizes == 0].any()


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_level_3_batched_is_level_3_of_each_support(kind: str) -> None:
    dictionary, codes = example(1, 20, 12, kind)
    found = exact_recovery_coefficients(codes, dictionary)
    for code, value in zip(codes, found, strict=True):
        inside = code.nonzero()[:, 0]
        if len(inside) == 0:
            assert value.isnan()
            continue
        assert value.item() == pytest.approx(exact_recovery_coefficient(dictionary, inside), abs=1e-9)


def test_basis_pursuit_in_a_metric_is_that_of_whitened_vectors_and_finds_no_longer_code() -> None:
    x = gaussian(60, 8)
    metric = AtomicInnerProduct.from_second_moment(x.T @ x / 60)
    dictionary, codes = gaussian(20, 8, seed=1), gaussian(10, 20, seed=2).abs() * (gaussian(10, 20, seed=3) > 1)
    target = codes @ dictionary
    for nonnegative in (True, False):
        found = basis_pursuit(target, dictionary, metric, nonnegative=nonnegative)
        torch.testing.assert_close(found @ dictionary, target, atol=1e-7, rtol=0)
        norms = metric.norm(dictionary)
        assert ((found.abs() * norms).sum(1) <= (codes * norms).sum(1) + 1e-7).all()
        assert not nonnegative or (found >= -1e-9).all()
        white = basis_pursuit(metric.whiten(target), metric.whiten(dictionary), nonnegative=nonnegative)
        torch.testing.assert_close(found, white, atol=1e-7, rtol=0)


def test_solved_recovery_tells_a_shorter_code_and_ties_apart() -> None:
    third = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]]).double()
    detour = torch.tensor([[0.6, 0.8, 0], [0, 0, 2.0], [0, 0, 0]]).double()  # the first is the third atom, shorter
    assert solved_recovery(detour, third).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="negative"):
        solved_recovery(-detour, third)
    assert basis_pursuit(-third[:1], third).isnan().all()  # outside the cone of the atoms
    assert basis_pursuit(torch.zeros(1, 2), third.float()).tolist() == [[0, 0, 0]]


def test_rates_are_over_samples_with_an_atom() -> None:
    assert recovery_levels(torch.zeros(2, 3), torch.eye(3), solve=False).solved is None
    assert all(value != value for value in recovery_levels(torch.zeros(2, 3), torch.eye(3)).rates().values())


def test_supports_beyond_the_largest_are_not_certified_by_levels_3_and_4() -> None:
    """Orthonormal atoms, where every code would be certified."""
    codes = torch.tensor([[1.0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]).double()
    dictionary = torch.linalg.qr(gaussian(4, 4))[0]
    for coefficients in (exact_recovery_coefficients, dual_certificates):
        found = coefficients(codes, dictionary, largest=2)
        assert found.isinf().tolist() == [True, False, False, False]
        assert found[2].isnan()
        assert not coefficients(codes, dictionary).isinf().any()
    levels = recovery_levels(codes, dictionary, largest=2)
    for level in (levels.exact_recovery, levels.dual_certificate):
        assert level.tolist() == [False, True, False, True]
    assert levels.solved is not None
    for level in (levels.coherence, levels.babel_recovery, levels.solved):
        assert level.tolist() == [True, True, False, True]
