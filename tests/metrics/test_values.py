"""Metrics against independent libraries and closed forms; what they refuse."""

import warnings

import numpy as np
import pytest
import torch
from torchmetrics import KLDivergence, MetricCollection

from atomlab.metrics import (
    CertifiedRate,
    CodeIsometry,
    ExplainedVariance,
    FiringShare,
    IsometryRates,
    LossRecovered,
    MatchedCosine,
    NextTokenKL,
    RefittedExplainedVariance,
    RestrictedIsometry,
    Stability,
    SupportSizes,
    UniformlyCertifiedRate,
)
from atomlab.theory import (
    coherence_statistics,
    empirical_isometry,
    restricted_isometry_curve,
)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_torchmetrics() -> None:
    p, q = gaussian(20, 50), gaussian(20, 50, seed=1)
    mine, theirs = NextTokenKL(), KLDivergence()
    for part in (slice(0, 3), slice(3, 20)):
        mine.update(p[part], q[part])
    theirs.update(p.softmax(1), q.softmax(1))
    assert mine.compute().item() == pytest.approx(theirs.compute().item(), rel=1e-5)
    same = NextTokenKL()
    same.update(p, p + 3)  # a constant added to all logits changes nothing
    assert same.compute().item() == pytest.approx(0, abs=1e-6)


def test_loss_recovered_at_its_ends() -> None:
    """1 where reconstructions cost nothing, 0 where they are no better than the ablation, on pooled tokens."""
    original, zero, mean = gaussian(30).abs(), gaussian(30, seed=1).abs() + 5, gaussian(30, seed=2).abs() + 2
    for spliced, against, expected in ((original, "zero", 1), (zero, "zero", 0), (mean, "mean", 0)):
        measure = LossRecovered()
        for part in (slice(0, 11), slice(11, 30)):
            measure.update(original[part], spliced[part], zero[part], mean[part])
        found = measure.compute()
        assert found[f"loss_recovered_{against}"].item() == pytest.approx(expected, abs=1e-6)
        assert found["loss"].item() == pytest.approx(spliced.double().mean().item())
        assert found["loss_clean"].item() == pytest.approx(original.double().mean().item())
        assert found["loss_gap"].item() == pytest.approx((mean.double().mean() - original.double().mean()).item())


def test_broken_inputs_are_named() -> None:
    bad = torch.full((2, 3), torch.nan)
    for measure in (SupportSizes(3, "mean"), FiringShare(3, 0), CertifiedRate(torch.eye(3), "solved")):
        with pytest.raises(ValueError, match="NaN"):
            measure.update(bad)
    with pytest.raises(ValueError, match="NaN"):
        ExplainedVariance(3).update(torch.ones(2, 3), bad)
    with pytest.raises(ValueError, match="NaN"):
        NextTokenKL().update(bad, torch.ones(2, 3))
    with pytest.raises(ValueError, match="losses"):
        LossRecovered().update(*(torch.full((2,), torch.inf) for _ in range(4)))


def test_sparse_rows_give_what_dense_codes_give() -> None:
    dictionary = gaussian(9, 6)
    codes = gaussian(12, 9, seed=1).abs() * (gaussian(12, 9, seed=2) > 0.7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        csr = codes.to_sparse_csr()
    for build in (
        lambda: SupportSizes(9, "mean"),
        lambda: SupportSizes(9, "median"),
        lambda: FiringShare(9, 1),
        lambda: UniformlyCertifiedRate(dictionary, "babel_unique"),
        lambda: CertifiedRate(dictionary, "exact_recovery"),
        lambda: CertifiedRate(dictionary, "dual_certificate"),
        lambda: CertifiedRate(dictionary, "solved"),
        lambda: CodeIsometry(dictionary, "ratio"),
        lambda: CodeIsometry(dictionary, "constant"),
    ):
        dense, sparse = build(), build()
        dense.update(codes)
        sparse.update(csr)
        torch.testing.assert_close(sparse.compute(), dense.compute())


def test_one_compute_group_for_all_that_keep_support_sizes() -> None:
    dictionary = gaussian(9, 30)
    codes = gaussian(12, 9, seed=1).relu()

    def measures() -> dict:
        return {
            "sizes": SupportSizes(9, "mean"),
            "level_1": UniformlyCertifiedRate(dictionary, "coherence"),
            "q": Stability(dictionary, "per_atom"),
            "isometry": IsometryRates(restricted_isometry_curve(dictionary, 18), 9),
        }

    together = MetricCollection(measures(), compute_groups=[["sizes", "level_1", "q", "isometry"]])
    for part in codes.split(5):
        together.update(part)
    for name, measure in measures().items():
        measure.update(codes)
        torch.testing.assert_close(together[name].compute(), measure.compute())


def test_a_refit_of_the_true_supports_is_perfect_and_never_worse() -> None:
    dictionary, bias = gaussian(15, 8), gaussian(8, seed=1)
    codes = gaussian(40, 15, seed=2).abs() * (gaussian(40, 15, seed=3) > 1)
    x = codes @ dictionary + bias
    perfect = RefittedExplainedVariance(dictionary, bias)
    perfect.update(x, codes * 0.5)  # shrunk values, right supports
    assert perfect.compute().item() == pytest.approx(1, abs=1e-9)
    noisy = x + 0.3 * gaussian(40, 8, seed=4)
    before, after = ExplainedVariance(8), RefittedExplainedVariance(dictionary, bias)
    before.update(noisy, codes @ dictionary + bias)
    after.update(noisy, codes)
    assert after.compute() > before.compute()


def test_the_isometry_of_codes_is_quantiles_of_all_codes_that_have_atoms() -> None:
    dictionary = gaussian(15, 8)
    codes = gaussian(60, 15, seed=1).relu() * (gaussian(60, 15, seed=2) > 0.5)
    codes[7] = 0
    all_codes = empirical_isometry(codes, dictionary)
    ratio, constant = CodeIsometry(dictionary, "ratio"), CodeIsometry(dictionary, "constant")
    for part in codes.split(11):
        ratio.update(part)
        constant.update(part)
    found, alive = ratio.compute(), (codes != 0).any(1)
    assert isinstance(found, dict)
    expected = np.quantile(all_codes.ratio[alive].numpy(), [0.01, 0.99])
    assert [found["low"].item(), found["high"].item()] == pytest.approx(expected.tolist(), rel=1e-12)
    middle = sorted(all_codes.constant[alive].tolist())[(int(alive.sum()) - 1) // 2]
    assert constant.compute().item() == pytest.approx(middle, rel=1e-12)  # type: ignore[union-attr]


def test_the_datas_own_supports_are_witnesses_of_the_restricted_isometry() -> None:
    """Twenty pairs with cosine .9 draw the search, which starts from the most coherent atoms; five atoms with pairwise
    cosine ½ have the Gram matrix ½ (I + 1 1ᵀ), so λ_max = 3 and δ = 2.
    """
    basis = torch.eye(60, dtype=torch.float64)
    second = 0.9 * basis[:40:2] + (1 - 0.9**2) ** 0.5 * basis[1:40:2]
    five = 0.5**0.5 * (basis[40] + basis[41:46])
    dictionary, own = torch.cat([basis[:40:2], second, five]), torch.tensor([[40, 41, 42, 43, 44]])
    searched, told = RestrictedIsometry(samples=1), RestrictedIsometry(samples=1)
    searched.update(dictionary, 5)
    told.update(dictionary, 5, own)
    assert searched.compute()[0] < 1
    assert told.compute()[0].item() == pytest.approx(2, rel=1e-12)


def test_levels_2a_and_2b_are_decided_by_a_babel_curve_that_is_long_enough() -> None:
    """Groups of 50 atoms with cosine .01, orthogonal to one another: μ₁(k) = .01 · min(k, 49), so that 2 μ₁(k) < 1 and all
    codes are certified; from the 64 values that a curve begins with, μ₁(79) + μ₁(80) could be .49 · 159 / 64 > 1.
    """
    group = 0.99 * torch.eye(50, dtype=torch.float64) + 0.01
    dictionary = torch.linalg.cholesky(torch.block_diag(group, group, group, group))
    codes = (torch.arange(200) < torch.tensor([[80], [90]])).float()
    for level in ("babel_unique", "babel_recovery"):
        rate = UniformlyCertifiedRate(dictionary, level)  # type: ignore[arg-type]
        short = UniformlyCertifiedRate(dictionary, level, statistics=coherence_statistics(dictionary, k=64))  # type: ignore[arg-type]
        rate.update(codes)
        short.update(codes)
        assert (rate.compute(), short.compute()) == (1, 0)


def test_the_matched_cosine_is_a_mean_over_pairs_of_dictionaries() -> None:
    a = torch.eye(3)
    turned = torch.tensor([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    matched = MatchedCosine()
    matched.update(a, a[[2, 0, 1]])  # the same atoms in another order
    matched.update(a, turned)
    best = (0.8 + 1 + 0.8 * -1) / 3, (0.6 + 0.6 + 1) / 3  # the two matchings that keep the third atom
    assert matched.compute().item() == pytest.approx((1 + max(best)) / 2, rel=1e-6)
