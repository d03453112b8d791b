"""theory.md 5: what is certified is recovered, by an independent solver; levels imply one another."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from atomlab.theory import (
    MARGIN,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    coherence_statistics,
    dual_certificates,
    exact_recovery_coefficient,
    supports,
)


def example(seed: int, n: int, d: int, k: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if kind == "low":  # coherence falls with the width
        dictionary = torch.cat([torch.eye(d, dtype=torch.float64), dictionary[: max(2, n - d)]])
    if kind == "degenerate":  # two atoms almost the same
        dictionary[1] = dictionary[0] + 1e-7 * dictionary[1]
    codes = torch.zeros(8, len(dictionary), dtype=torch.float64)
    for row in codes:
        row[torch.randperm(len(dictionary), generator=generator)[:k]] = (
            torch.rand(k, generator=generator, dtype=torch.float64) + 0.1
        )
    return dictionary, codes


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(4, 20),
    d=st.integers(3, 24),
    k=st.integers(1, 6),
    kind=st.sampled_from(["plain", "low", "degenerate"]),
)
def test_levels_imply_one_another_and_certified_codes_are_what_the_solver_finds(
    seed: int, n: int, d: int, k: int, kind: str
) -> None:
    dictionary, codes = example(seed, n, d, min(k, n - 1), kind)
    sizes = supports(codes).sizes
    statistics = coherence_statistics(dictionary, k=12)
    level1 = coherence_certified(sizes, statistics.coherence)
    unique, recovered = (
        babel_unique_certified(sizes, statistics),
        babel_recovery_certified(sizes, statistics),
    )
    level3 = torch.tensor(
        [exact_recovery_coefficient(dictionary, row.nonzero().squeeze(1)) < 1 - MARGIN for row in codes]
    )
    level4 = dual_certificates(codes, dictionary) < 1 - MARGIN
    two_sided = dual_certificates(codes, dictionary, one_sided=False) < 1 - MARGIN
    for stronger, weaker in (
        (level1, recovered),
        (recovered, unique),
        (recovered, level3),
        (level3, two_sided),
        (two_sided, level4),
    ):
        assert not (stronger & ~weaker).any()
    norms = dictionary.norm(dim=1)
    beyond_tolerance = dual_certificates(codes, dictionary) < 1 - 1e-4  # HiGHS cannot tell twins 1e-7 apart
    for row in codes[beyond_tolerance][:2]:
        solved = linprog(
            norms.numpy(), A_eq=dictionary.T.numpy(), b_eq=(row @ dictionary).numpy(), bounds=(0, None), method="highs"
        )
        assert solved.status == 0
        torch.testing.assert_close(torch.from_numpy(solved.x), row, atol=1e-5, rtol=0)  # HiGHS is feasible to 1e-7


def test_batches_padding_and_csr_change_nothing() -> None:
    dictionary, codes = example(0, 20, 12, 5, "plain")
    codes[::2, 10:] = 0
    whole = dual_certificates(codes, dictionary)
    each = torch.cat([dual_certificates(row[None], dictionary) for row in codes])
    torch.testing.assert_close(whole, each, equal_nan=True)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CSR tensor support is in beta"
        )  # PyTorch's own, once a process
        csr = codes.to_sparse_csr()
    torch.testing.assert_close(dual_certificates(csr, dictionary), whole, equal_nan=True)


def test_the_certificate_against_its_formula() -> None:
    dictionary, codes = example(3, 15, 9, 3, "plain")
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    for row, value in zip(codes, dual_certificates(codes, dictionary), strict=True):
        inside = row > 0
        gram = unit[inside] @ unit[inside].T
        scores = unit[~inside] @ unit[inside].T @ torch.linalg.inv(gram).sum(1)
        assert value == pytest.approx(max(0.0, float(scores.max())), abs=1e-9)


def test_a_duplicated_pair_as_support_is_never_certified() -> None:
    dictionary = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]]
    codes = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.isinf(dual_certificates(codes, dictionary)).all()
    assert exact_recovery_coefficient(dictionary, torch.tensor([0, 1])) == float("inf")


def test_erc_below_one_does_not_mean_sparsest() -> None:
    rest = 0.73**0.5
    dictionary = torch.tensor(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.3, 0.3, 0.3, rest], [0.3, 0.3, 0.3, -rest]], dtype=torch.float64
    )
    assert exact_recovery_coefficient(dictionary, torch.tensor([0, 1, 2])) == pytest.approx(0.9)
    torch.testing.assert_close(dictionary[3] + dictionary[4], 0.6 * dictionary[:3].sum(0))


def test_empty_codes_and_bad_input() -> None:
    dictionary = torch.eye(3, dtype=torch.float64)
    assert torch.isnan(dual_certificates(torch.zeros(1, 3, dtype=torch.float64), dictionary)).all()
    assert not coherence_certified(torch.tensor([0]), 0.0).any()
    with pytest.raises(ValueError, match="negative"):
        dual_certificates(-torch.eye(3, dtype=torch.float64), dictionary)
    with pytest.raises(ValueError, match="NaN"):
        dual_certificates(torch.full((1, 3), torch.nan, dtype=torch.float64), dictionary)
    for support in ([], [1, 1]):
        with pytest.raises(ValueError, match="support"):
            exact_recovery_coefficient(dictionary, torch.tensor(support, dtype=torch.int64))
