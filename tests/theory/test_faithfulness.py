"""theory.md 8: variance explained against scikit-learn, divergences against SciPy, shares by their definition."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import r2_score

from atomlab.theory import AtomicInnerProduct, explained_variance, kl_divergence, loss_recovered, variance_sums


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = gaussian(50, 5) * torch.tensor([5.0, 1, 1, 0.1, 2]) + torch.tensor([3.0, 0, -1, 10, 0])
X_HAT = X + gaussian(50, 5, seed=1) / 2


def test_variance_explained_is_scikit_learns_over_uneven_batches() -> None:
    sums = torch.stack([variance_sums(X[a:b], X_HAT[a:b]) for a, b in ((0, 1), (1, 8), (8, 50))]).sum(0)
    expected = r2_score(X.numpy(), X_HAT.numpy(), multioutput="variance_weighted")  # pooled over dimensions
    assert explained_variance(sums, 50).item() == pytest.approx(expected, abs=1e-12)
    uncentred = 1 - (X - X_HAT).square().sum() / X.square().sum()
    assert explained_variance(sums, 50, centred=False).item() == pytest.approx(uncentred.item(), abs=1e-12)


def test_variance_explained_in_a_metric_is_that_of_its_quadratic_form() -> None:
    mix = gaussian(5, 5, seed=2)
    metric = AtomicInnerProduct(mix @ mix.T)
    error, spread = X - X_HAT, X - X.mean(0)
    expected = 1 - torch.einsum("nd,de,ne", error, metric.matrix, error) / torch.einsum(
        "nd,de,ne", spread, metric.matrix, spread
    )
    found = explained_variance(variance_sums(X, X_HAT, metric.whitening), 50)
    torch.testing.assert_close(found, expected)


def test_constant_activations_have_no_variance_to_explain() -> None:
    constant = torch.ones(4, 3)
    assert explained_variance(variance_sums(constant, constant / 2), 4).isnan()
    assert explained_variance(variance_sums(constant, constant / 2), 4, centred=False) == 0.75


def test_divergences_are_scipys_and_not_symmetric() -> None:
    logits, other = 3 * gaussian(6, 2, 9), 3 * gaussian(6, 2, 9, seed=1)
    expected = entropy(softmax(logits.numpy(), -1), softmax(other.numpy(), -1), axis=-1)
    np.testing.assert_allclose(kl_divergence(logits, other).numpy(), expected, rtol=1e-12)
    assert not np.allclose(kl_divergence(other, logits).numpy(), expected)


def test_loss_recovered_at_its_landmarks() -> None:
    original, ablated = torch.full((4,), 2.0), torch.full((4,), 10.0)
    spliced = torch.tensor([2.0, 10.0, 4.0, 18.0])  # as good, as bad, a quarter of the loss, twice as bad
    assert loss_recovered(original, spliced, ablated).tolist() == [1, 0, 0.75, -1]
    assert loss_recovered(original, spliced, original).isnan().all()
