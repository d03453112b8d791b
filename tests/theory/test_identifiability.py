"""theory.md 6: the theorem on random codes; thresholds and refits against brute force and an independent library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import (
    AtomicInnerProduct,
    mutual_coherence,
    random_dictionary,
    reconstruct,
    refit_codes,
    shared_thresholds,
    support_recovery,
    threshold_windows,
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(samples: int, n: int, top: int, seed: int) -> torch.Tensor:
    """Non-negative codes of 0 to `top` atoms."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(samples, n, dtype=torch.float64)
    for row in codes:
        k = int(torch.randint(0, top + 1, (1,), generator=generator))
        row[torch.randperm(n, generator=generator)[:k]] = 1 + torch.rand(k, generator=generator, dtype=torch.float64)
    return codes


def metric(d: int) -> AtomicInnerProduct:
    x = gaussian(5 * d, d, seed=9)
    return AtomicInnerProduct.from_second_moment(x.T @ x / len(x))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 16), d=st.integers(2, 60), top=st.integers(1, 3))
def test_a_threshold_in_the_window_recovers_the_support(seed: int, n: int, d: int, top: int) -> None:
    dictionary, codes, s = gaussian(n, d, seed=seed), sparse(30, n, min(top, n), seed), metric(d)
    windows = threshold_windows(codes, dictionary, s)
    norms = s.norm(dictionary)
    epsilon = mutual_coherence(dictionary, s)
    z = (codes @ dictionary) @ s.matrix @ (dictionary / norms[:, None]).T
    found = support_recovery(codes @ dictionary, codes, dictionary, torch.zeros(n), s)
    for row, lower, upper, feasible, scores, oracle in zip(
        codes * norms, windows.lower, windows.upper, windows.feasible, z, found.oracle, strict=True
    ):
        inside, k = row > 0, int((row > 0).sum())
        if k == 0:
            assert not feasible
            assert not oracle
            continue
        assert feasible == bool(row[inside].min() > epsilon * (2 * k - 1) * row.max())
        gap = scores[inside].min() > max(0.0, float(scores[~inside].max())) if k < n else scores.min() > 0
        assert oracle == bool(gap)
        if feasible:
            assert torch.equal(scores > (lower + upper) / 2, inside)
            assert oracle


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 8))
def test_shared_thresholds_make_the_fewest_errors_of_all_thresholds(seed: int, n: int) -> None:
    dictionary, codes = gaussian(n, 3, seed=seed), sparse(25, n, 2, seed)
    codes[:, 0] = 0  # a latent that should never fire
    x = (codes @ dictionary).round(decimals=1)  # ties among pre-activations
    thresholds = shared_thresholds(x, codes, dictionary)
    z = x @ (dictionary / dictionary.norm(dim=1, keepdim=True)).T
    assert thresholds[0] == torch.inf
    for j in range(n):
        errors = [int(((z[:, j] > tau) != (codes[:, j] > 0)).sum()) for tau in [0.0, *z[:, j].clamp(min=0).tolist()]]
        assert thresholds[j] >= 0
        assert int(((z[:, j] > thresholds[j]) != (codes[:, j] > 0)).sum()) == min(errors)


def test_shared_thresholds_recover_on_unseen_codes_what_the_encoder_allows() -> None:
    lengths = 0.5 + torch.rand(200, 1, generator=torch.Generator().manual_seed(3)).double()
    dictionary = random_dictionary(200, 100, torch.Generator().manual_seed(0)).double() * lengths
    train, test = sparse(2000, 200, 2, 1), sparse(500, 200, 2, 2)
    thresholds = shared_thresholds(train @ dictionary, train, dictionary)
    found = support_recovery(test @ dictionary, test, dictionary, thresholds)
    alive = (test > 0).any(1)
    by_hand = ((test @ dictionary) @ (dictionary / dictionary.norm(dim=1, keepdim=True)).T > thresholds).eq(test > 0)
    assert torch.equal(found.shared, by_hand.all(1) & alive)
    assert found.shared.any()
    assert (alive & ~found.shared).any()


def test_orthonormal_atoms_are_recovered_on_all_unseen_codes() -> None:
    """Pre-activations are the values, 0 or at least 1, so thresholds lie midway between."""
    dictionary = 3 * torch.linalg.qr(gaussian(20, 20))[0]
    train, test = sparse(300, 20, 4, 1), sparse(300, 20, 4, 2)
    thresholds = shared_thresholds(train @ dictionary, train, dictionary)
    smallest = 3 * train.masked_fill(train == 0, torch.inf).amin(0)
    torch.testing.assert_close(thresholds, smallest / 2)
    found = support_recovery(test @ dictionary, test, dictionary, thresholds)
    assert torch.equal(found.shared, (test > 0).any(1))


@pytest.mark.parametrize("in_metric", [False, True])
def test_refits_are_least_squares(in_metric: bool) -> None:
    dictionary, x, codes = gaussian(12, 6), gaussian(40, 6, seed=1), sparse(40, 12, 4, 2)
    s = metric(6) if in_metric else None
    white, target = (dictionary, x) if s is None else (s.whiten(dictionary), s.whiten(x))
    refitted = refit_codes(x, codes, dictionary, s)
    for row, code, indices, mask, values in zip(
        target, codes, refitted.indices, refitted.mask, refitted.values, strict=True
    ):
        expected = np.linalg.lstsq(white[code > 0].T.numpy(), row.numpy(), rcond=None)[0]
        assert torch.equal(indices[mask], code.nonzero()[:, 0])
        torch.testing.assert_close(values[mask], torch.from_numpy(expected))
    torch.testing.assert_close(
        refit_codes(codes @ dictionary, codes, dictionary, s).values[codes.sum(1) > 0].sum(1),
        codes[codes.sum(1) > 0].sum(1),
    )
    before, after = (x - codes @ dictionary), x - reconstruct(refitted, dictionary)
    norm = torch.linalg.norm if s is None else s.norm
    assert norm(after).square().sum() <= norm(before).square().sum()


def test_a_duplicated_pair_is_refitted_to_the_same_reconstruction_and_stays_finite() -> None:
    dictionary = torch.eye(3, dtype=torch.float64)[[0, 0, 1]]
    codes, x = torch.tensor([[1.0, 1.0, 0.0]]).double(), torch.tensor([[4.0, 1.0, 0.0]]).double()
    refitted = refit_codes(x, codes, dictionary)
    torch.testing.assert_close(reconstruct(refitted, dictionary), torch.tensor([[4.0, 0.0, 0.0]]).double())


def test_negative_codes_have_no_window() -> None:
    with pytest.raises(ValueError, match="negative"):
        threshold_windows(-torch.eye(3), torch.eye(3))
