"""theory.md 3: closed forms and invariances."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from atomlab.theory import (
    AtomicInnerProduct,
    babel_function,
    coherence_statistics,
    mutual_coherence,
    per_atom_coherence,
    random_dictionary,
    welch_bound,
)


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def simplex(d: int) -> torch.Tensor:
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    return centred @ torch.linalg.svd(centred)[2][:d].T


def test_closed_forms() -> None:
    assert mutual_coherence(torch.eye(5)) == 0
    both = torch.cat([torch.eye(8), torch.tensor(hadamard(8) / math.sqrt(8))]).double()
    assert mutual_coherence(both) == pytest.approx(1 / math.sqrt(8), abs=1e-14)
    assert mutual_coherence(simplex(4)) == pytest.approx(1 / 4, abs=1e-14) == welch_bound(5, 4)
    assert mutual_coherence(torch.cat([gaussian(4, 3, 0), gaussian(4, 3, 0)[:1]])) == pytest.approx(1, abs=1e-14)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 30), d=st.integers(2, 8), seed=st.integers(0, 10_000))
def test_bounds_and_invariances(n: int, d: int, seed: int) -> None:
    dictionary = gaussian(n, d, seed)
    mu = mutual_coherence(dictionary)
    rotation = torch.linalg.qr(gaussian(d, d, seed + 1))[0]
    scales = gaussian(n, 1, seed + 2)  # signs and lengths
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert welch_bound(n, d) <= mu + 1e-12
    assert mutual_coherence(((dictionary * scales) @ rotation)[order]) == pytest.approx(mu, abs=1e-10)
    curve = [babel_function(dictionary, k) for k in range(n)]
    assert curve[0] == 0
    assert curve[1] == pytest.approx(mu, abs=1e-12)
    assert all(low <= high + 1e-12 and high <= k * mu + 1e-9 for k, (low, high) in enumerate(pairwise(curve), 1))


@pytest.mark.parametrize("block", [1, 8, 100])
@pytest.mark.parametrize("order", ["random", "near twins last", "near twins first"])
def test_blocks_equal_the_whole_gram(block: int, order: str) -> None:
    dictionary = gaussian(37, 9, 3)
    if order != "random":  # the best pairs come last, or first: the running largest have to give way, or to hold
        dictionary[-4:] = dictionary[:1] + 0.01 * dictionary[-4:]
        dictionary = dictionary.flip(0) if order == "near twins first" else dictionary
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    gram = (unit @ unit.T).abs().fill_diagonal_(-1)
    statistics = coherence_statistics(dictionary, k=5, block=block)
    torch.testing.assert_close(statistics.per_atom, gram.amax(1))
    torch.testing.assert_close(per_atom_coherence(dictionary), gram.amax(1))
    torch.testing.assert_close(statistics.babel, gram.topk(5).values.cumsum(1).amax(0))
    pairs = gram[~torch.eye(37, dtype=torch.bool)].numpy()
    for q in (0.1, 0.5, 0.995):
        exact = np.quantile(pairs, q, method="inverted_cdf")
        assert exact - 1e-7 <= statistics.pair_quantile(q) <= exact + 1.1e-5


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 40),
    d=st.integers(2, 60),
    condition=st.sampled_from([None, 1.0, 1e4, 1e8]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_float32_errs_by_no_more_than_its_stated_rounding(
    seed: int, n: int, d: int, condition: float | None, dtype: torch.dtype
) -> None:
    """Whatever the condition of the metric: atoms are whitened in float64. So bounds are bounds."""
    metric = None
    if condition is not None:
        rotation = torch.linalg.qr(gaussian(d, d, seed + 1))[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the condition number
            metric = AtomicInnerProduct((rotation * torch.logspace(0, math.log10(condition), d)) @ rotation.T)
    dictionary = gaussian(n, d, seed).to(dtype)
    found, exact = (coherence_statistics(x, metric, k=5) for x in (dictionary, dictionary.double()))
    assert (found.per_atom - exact.per_atom).abs().max() <= found.rounding + 1e-9
    assert exact.coherence <= found.coherence_bound + 1e-9
    sizes = torch.arange(12)
    assert (exact.babel_bound(sizes) <= found.babel_bound(sizes) + 1e-8).all()
    longer = coherence_statistics(dictionary.double(), metric, k=12)
    assert (longer.babel_bound(sizes) <= found.babel_bound(sizes) + 1e-8).all()  # beyond the end of the curve


@pytest.mark.parametrize(
    ("dictionary", "words"),
    [(torch.zeros(2, 3), "Atom 0"), (torch.tensor([[1.0, torch.nan], [1, 0]]), "NaN"), (torch.ones(1, 3), "has 1")],
)
def test_bad_dictionaries_are_named(dictionary: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mutual_coherence(dictionary)


def test_random_atoms_are_unit() -> None:
    torch.testing.assert_close(random_dictionary(7, 4).norm(dim=1), torch.ones(7))
