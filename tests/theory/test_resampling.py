"""The bootstrap of whole groups: against Student's interval, SciPy's bootstrap, and its own promise of coverage."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from atomlab.theory import bootstrap_interval, group_weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(groups=st.integers(1, 40), replicates=st.integers(1, 30), seed=st.integers(0, 1000))
def test_every_sample_has_as_many_groups(groups: int, replicates: int, seed: int) -> None:
    weights = group_weights(groups, replicates, generator(seed))
    assert weights.shape == (replicates, groups)
    assert (weights >= 0).all()
    assert weights.sum(1).tolist() == [groups] * replicates


def test_counts_have_mean_one_and_the_variance_of_a_multinomial() -> None:
    groups, replicates = 20, 20_000
    weights = group_weights(groups, replicates, generator())
    # The variance of a count of mean 1 is near 1; four standard errors of mean and variance.
    torch.testing.assert_close(weights.mean(0), torch.ones(groups).double(), rtol=0, atol=4 * replicates**-0.5)
    variance = 1 - 1 / groups
    torch.testing.assert_close(weights.var(0), torch.full((groups,), variance).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("groups", [30, 200])
def test_the_interval_of_a_mean_is_students(groups: int) -> None:
    values = torch.randn(groups, generator=generator(1), dtype=torch.float64)
    replicates = group_weights(groups, 50_000, generator()) @ values / groups
    low, high = bootstrap_interval(replicates, float(values.mean()), groups) or (0, 0)
    student = scipy.stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    width = student.high - student.low
    # Its derivation takes the replicates for normal; they nearly are.
    assert (low, high) == pytest.approx((student.low, student.high), abs=0.04 * width)


def test_with_many_groups_it_is_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(0)
    errors, variances = rng.gamma(2, size=400), rng.gamma(3, size=400)

    def r2(e: np.ndarray, v: np.ndarray, axis: int) -> np.ndarray:
        return 1 - e.sum(axis) / v.sum(axis)

    theirs = scipy.stats.bootstrap(
        (errors, variances), r2, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    weights = group_weights(400, 20_000, generator())
    replicates = 1 - weights @ torch.from_numpy(errors) / (weights @ torch.from_numpy(variances))
    ours = bootstrap_interval(replicates, float(r2(errors, variances, 0)), 400)
    assert ours == pytest.approx(tuple(theirs), abs=0.04 * (theirs.high - theirs.low))


def test_nine_documents_cover_as_often_as_promised_and_plain_percentiles_do_not() -> None:
    """Of 600 experiments, about 95% of the intervals hold the true mean; four standard errors are 3.6%."""
    groups, experiments = 9, 600
    weights = group_weights(groups, 2000, generator(2))
    covered = plain = 0
    for values in torch.randn(experiments, groups, generator=generator(3), dtype=torch.float64):
        replicates = weights @ values / groups
        low, high = bootstrap_interval(replicates, float(values.mean()), groups) or (0, 0)
        covered += low <= 0 <= high
        narrow = torch.quantile(replicates, torch.tensor([0.025, 0.975], dtype=torch.float64))
        plain += bool(narrow[0] <= 0 <= narrow[1])
    assert covered / experiments == pytest.approx(0.95, abs=0.036)
    assert plain / experiments < 0.95 - 0.036


def test_the_interval_lies_around_the_number_and_not_around_what_few_documents_make_of_it() -> None:
    """R² of vectors with document means: the variance about the mean of a sample of eight documents is too small, and
    without the move the interval would lie too low.
    """
    generator_ = generator(5)
    x = torch.randn(8, 1, 3, generator=generator_, dtype=torch.float64) + 0.02 * torch.randn(
        8, 400, 3, generator=generator_, dtype=torch.float64
    )
    errors = torch.full((8,), 100.0, dtype=torch.float64) + torch.rand(8, generator=generator_, dtype=torch.float64)
    weights = group_weights(8, 4000, generator_)
    squares, sums = x.square().sum((1, 2)), x.sum(1)

    def r2(drawn: torch.Tensor) -> torch.Tensor:
        return 1 - drawn @ errors / (drawn @ squares - (drawn @ sums).square().sum(1) / (400 * 8))

    value, replicates = float(r2(torch.ones(1, 8, dtype=torch.float64))), r2(weights)
    assert float(replicates.mean()) < value - 0.01
    low, high = bootstrap_interval(replicates, value, 8) or (0, 0)
    assert low < value < high
    tail = torch.quantile(replicates, torch.tensor([0.5], dtype=torch.float64))
    assert low < float(tail) + value - float(replicates.mean()) < high


def test_one_group_says_nothing_and_nan_counts_for_nothing() -> None:
    assert bootstrap_interval(torch.ones(10), 1.0, 1) is None
    assert bootstrap_interval(torch.full((10,), torch.nan), 1.0, 5) is None
    known = torch.arange(100.0)
    with_nan = torch.cat([known, torch.full((7,), torch.nan)])
    assert bootstrap_interval(with_nan, 49.5, 50) == bootstrap_interval(known, 49.5, 50)
