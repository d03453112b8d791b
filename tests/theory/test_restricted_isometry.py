"""theory.md 4: the interval holds the exact constant."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import coherence_statistics, restricted_isometry_bounds


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 9), d=st.integers(2, 12))
def test_lower_exact_upper_and_monotone_in_k(seed: int, n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n, d, generator=generator, dtype=torch.float64)
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    previous = 0.0
    for k in range(1, n + 1):
        exact = max(
            max(values[-1].item() - 1, 1 - values[0].item())
            for values in (torch.linalg.eigvalsh(unit[list(s)] @ unit[list(s)].T) for s in combinations(range(n), k))
        )
        searched = restricted_isometry_bounds(
            dictionary, k, enumeration_limit=0, samples=8, starts=2, generator=generator
        )
        enumerated = restricted_isometry_bounds(dictionary, k)
        assert searched.lower <= exact + 1e-9 <= searched.upper + 2e-9
        assert enumerated.exact
        assert enumerated.lower == pytest.approx(exact, abs=1e-9)
        assert exact >= previous - 1e-9
        previous = exact
        values = torch.linalg.eigvalsh(unit[searched.witness] @ unit[searched.witness].T)
        assert max(values[-1] - 1, 1 - values[0]).item() == pytest.approx(
            searched.lower, abs=1e-9
        )  # the witness attains it
        if k > d:
            assert exact >= 1 - 1e-9


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 8), d=st.integers(2, 40), length=st.integers(1, 4))
def test_float32_statistics_and_a_short_babel_curve_still_bound_from_above(
    seed: int, n: int, d: int, length: int
) -> None:
    dictionary = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    statistics = coherence_statistics(dictionary, k=length)
    for k in range(2, n + 1):
        exact = restricted_isometry_bounds(dictionary.double(), k)
        bounds = restricted_isometry_bounds(
            dictionary, k, statistics=statistics, enumeration_limit=0, samples=4, starts=2
        )
        assert exact.exact
        assert bounds.lower <= exact.lower + 1e-9
        assert exact.lower <= bounds.upper + 1e-9


def test_closed_forms_and_bad_input() -> None:
    bounds = restricted_isometry_bounds(torch.eye(12), 4)
    assert (bounds.lower, bounds.upper) == (0, 0)
    twins = torch.eye(30)[[0, *range(30)]]
    assert restricted_isometry_bounds(twins, 2, enumeration_limit=0, samples=2).lower == pytest.approx(1)
    for k in (0, 13):
        with pytest.raises(ValueError, match=f"K={k}"):
            restricted_isometry_bounds(torch.eye(12), k)
