"""theory.md 2: angles against brute force; the identities of the atomic inner product; the surrogate's moments."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from atomlab.theory import (
    AtomicInnerProduct,
    Geometry,
    angle_distribution,
    gaussian_surrogate,
    geometries,
    representation_shift,
)


def skewed(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Exponentials of correlated normals: neither centred nor Gaussian nor isotropic."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix).exp() @ mix + 0.5


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean(0), x.T @ x / len(x)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 40), d=st.integers(2, 6), seed=st.integers(0, 1000))
def test_angles_are_scipys(n: int, d: int, seed: int) -> None:
    x = skewed(n, d, seed)
    found = angle_distribution(x)
    expected = np.rad2deg(np.arccos(np.clip(1 - pdist(x.numpy(), "cosine"), -1, 1)))
    assert found.count == n * (n - 1) // 2 == int(found.histogram.sum())
    assert found.mean == pytest.approx(expected.mean(), abs=1e-5)
    assert found.sd == pytest.approx(expected.std(), abs=1e-3)
    assert found.shift == abs(found.mean - 90)


def test_mahalanobis_angles_are_those_of_the_textbook() -> None:
    x = skewed(60, 4)
    found = angle_distribution(x, geometries(*moments(x))["mahalanobis"]())
    inverse = np.linalg.inv(np.cov(x.numpy(), rowvar=False, bias=True))
    centred = x.numpy() - x.numpy().mean(0)
    gram = centred @ inverse @ centred.T
    norms = np.sqrt(np.diag(gram))
    cosines = (gram / norms[:, None] / norms)[np.triu_indices(60, 1)]
    assert found.mean == pytest.approx(np.rad2deg(np.arccos(cosines)).mean(), abs=1e-9)


def test_tiles_and_partners_change_nothing() -> None:
    x = skewed(1100, 3)
    whole = angle_distribution(x)
    parts = [angle_distribution(x[:500]), angle_distribution(x[500:]), angle_distribution(x[:500], None, x[500:])]
    assert whole.count == sum(part.count for part in parts)
    assert whole.total == pytest.approx(sum(part.total for part in parts), rel=1e-12)
    assert torch.equal(whole.histogram, torch.stack([part.histogram for part in parts]).sum(0))


def test_causal_geometry_is_dual_to_the_inner_product_of_unembedding_vectors() -> None:
    """A change of basis γ → Aγ, λ → A⁻ᵀλ leaves logits λᵀγ and therefore causal angles of activations alone."""
    x, gamma, basis = skewed(30, 4), skewed(200, 4, 1), skewed(4, 4, 2)
    angles = angle_distribution(x, geometries(*moments(x), unembedding=gamma)["causal"]())
    changed = x @ torch.linalg.inv(basis)
    again = angle_distribution(changed, geometries(*moments(changed), unembedding=gamma @ basis.T)["causal"]())
    assert again.mean == pytest.approx(angles.mean, abs=1e-8)


@pytest.mark.parametrize("n", [4, 30, 500])
def test_the_surrogate_has_exactly_the_datas_moments(n: int) -> None:
    x = skewed(n, 6)
    null = gaussian_surrogate(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(null.mean(0), x.mean(0))
    torch.testing.assert_close(null.T @ null, x.T @ x)
    assert not torch.allclose(null, x)


def test_gaussian_activations_shift_as_their_null_and_their_own_metric_removes_it() -> None:
    """The mean inner product in the own metric is in [0, 1] of d (theory.md 1), so the mean cosine is near nothing."""
    x = torch.randn(800, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    places = {name: make() for name, make in geometries(*moments(x)).items()}
    found = representation_shift(x, places, generator=torch.Generator().manual_seed(1))
    before, after = found["euclidean"], found["aip"]
    assert before.observed.shift > 40
    assert before.observed.mean == pytest.approx(before.null.mean, abs=1)
    assert after.observed.shift < 3
    assert after.observed.mean == pytest.approx(after.null.mean, abs=0.3)
    assert found["centred"].observed.shift < 0.5


def test_a_metric_of_another_distribution_does_not_remove_the_shift() -> None:
    x = torch.randn(400, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    elsewhere = Geometry(None, AtomicInnerProduct(torch.eye(10, dtype=torch.float64)))
    assert angle_distribution(x, elsewhere).shift == pytest.approx(angle_distribution(x).shift)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(1, 3), "got 1 vectors"),
        (torch.tensor([[0.0, 0.0], [1.0, 0.0]]), "Vector 0"),
        (torch.tensor([[torch.nan, 0.0], [1.0, 0.0]]), "NaN"),
    ],
)
def test_bad_input_is_named(x: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        angle_distribution(x)


def test_a_surrogate_of_one_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1"):
        gaussian_surrogate(torch.ones(1, 3))
