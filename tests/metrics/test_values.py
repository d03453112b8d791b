"""Metrics against independent libraries and closed forms; what they refuse."""

import warnings

import pytest
import torch
from torchmetrics import KLDivergence, MetricCollection

from atomlab.metrics import (
    CertifiedRate,
    DeadLatents,
    ExplainedVariance,
    IsometryDistribution,
    IsometryRates,
    L0Histogram,
    LossRecovered,
    MeanL0,
    NextTokenKL,
    RefittedExplainedVariance,
    Stability,
    UniformlyCertifiedRate,
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
        assert found[f"recovered_{against}"].item() == pytest.approx(expected, abs=1e-6)
        assert found["original"].item() == pytest.approx(original.double().mean().item())


def test_broken_inputs_are_named() -> None:
    bad = torch.full((2, 3), torch.nan)
    for measure in (MeanL0(), L0Histogram(3), DeadLatents(3), CertifiedRate(torch.eye(3), "solved")):
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
        MeanL0,
        lambda: L0Histogram(9),
        lambda: DeadLatents(9),
        lambda: UniformlyCertifiedRate(dictionary, "babel_unique"),
        lambda: CertifiedRate(dictionary, "exact_recovery"),
        lambda: CertifiedRate(dictionary, "dual_certificate"),
        lambda: CertifiedRate(dictionary, "solved"),
        lambda: IsometryDistribution(dictionary, "ratio"),
        lambda: IsometryDistribution(dictionary, "constant"),
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
            "sizes": L0Histogram(9),
            "level_1": UniformlyCertifiedRate(dictionary, "coherence"),
            "q": Stability(dictionary, "per_atom"),
            "isometry": IsometryRates(dictionary),
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
