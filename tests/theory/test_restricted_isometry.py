"""theory.md 4: the interval holds the exact constant."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import (
    babel_function,
    coherence_statistics,
    first_supports,
    restricted_isometry_bounds,
    restricted_isometry_curve,
)


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
        assert searched.upper == pytest.approx(max(searched.lower, babel_function(dictionary, k - 1)), abs=1e-9)
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


def planted(cosine: float, k: int, n: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """Orthonormal atoms but for K with the same cosine to one another, in random places; and these places."""
    gram = torch.eye(n, dtype=torch.float64)
    places = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]
    gram[places[:, None], places] = cosine
    gram.fill_diagonal_(1)
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt(), sorted(places.tolist())


@pytest.mark.parametrize("cosine", [0.2, -0.25])  # the largest eigenvalue decides (δ = .8), or the smallest (δ = 1)
def test_the_search_finds_a_planted_support(cosine: float) -> None:
    """One of 142,506 supports; every other has a smaller δ."""
    dictionary, places = planted(cosine, 5, 30, seed=3)
    expected = 0.8 if cosine > 0 else 1.0
    found = restricted_isometry_bounds(dictionary, 5, enumeration_limit=0, samples=1)
    assert found.lower == pytest.approx(expected, abs=1e-9)
    assert sorted(found.witness.tolist()) == places
    assert found.upper == pytest.approx(max(4 * abs(cosine), expected), abs=1e-9)
    curve = restricted_isometry_curve(dictionary, 5, samples=1)
    assert curve.lower[5].item() == pytest.approx(expected, abs=1e-9)


def test_a_given_support_is_tried() -> None:
    dictionary, places = planted(-0.25, 5, 30, seed=4)
    without = restricted_isometry_bounds(dictionary, 5, enumeration_limit=0, samples=1, starts=0)
    with_it = restricted_isometry_bounds(
        dictionary, 5, enumeration_limit=0, samples=1, starts=0, supports=torch.tensor([places])
    )
    assert without.lower < 0.9
    assert with_it.lower == pytest.approx(1, abs=1e-9)


def test_first_supports_are_those_of_k_atoms_in_order() -> None:
    indices = torch.tensor([[4, 0, 0], [7, 2, 0], [1, 3, 5], [9, 6, 0], [8, 1, 0]])
    sizes = torch.tensor([1, 2, 3, 2, 2])
    assert first_supports(indices, sizes, 2).tolist() == [[7, 2], [9, 6], [8, 1]]
    assert first_supports(indices, sizes, 2, limit=2).tolist() == [[7, 2], [9, 6]]
    assert first_supports(indices, sizes, 4).shape == (0, 4)
