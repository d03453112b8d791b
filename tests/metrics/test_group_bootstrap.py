"""Numbers of resampled groups are those of the same metrics on the vectors of these groups, one after another."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torchmetrics import Metric, MetricCollection

from atomlab.metrics import (
    CertifiedRate,
    ExplainedVariance,
    FiringShare,
    IsometryRates,
    Stability,
    SupportSizes,
    UniformlyCertifiedRate,
)
from atomlab.metrics.group_bootstrap import GroupBootstrap
from atomlab.theory import AtomicInnerProduct, group_weights, restricted_isometry_curve

D_IN, D_SAE, GROUPS = 6, 10, 5
SHARING = [["l0", "median", "empty", "level_1"], ["dead"], ["level_4"], ["stability"], ["verdicts"]]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dictionary() -> torch.Tensor:
    return torch.randn(D_SAE, D_IN, generator=generator(0))


def codes(group: int) -> torch.Tensor:
    """Of groups of different sizes."""
    values = torch.rand(3 + 2 * group, D_SAE, generator=generator(group))
    return values * (values > 0.7)


def of_codes() -> dict[str, Metric]:
    curve = restricted_isometry_curve(dictionary(), 6, generator=generator(0))
    return {
        "l0": SupportSizes(D_SAE, "mean"),
        "median": SupportSizes(D_SAE, "median"),
        "empty": SupportSizes(D_SAE, "empty"),
        "level_1": UniformlyCertifiedRate(dictionary(), "coherence"),
        "dead": FiringShare(D_SAE, 0),
        "level_4": CertifiedRate(dictionary(), "dual_certificate"),
        "stability": Stability(dictionary(), "pairwise"),
        "verdicts": IsometryRates(curve, D_SAE),
    }


def of_vectors() -> dict[str, Metric]:
    weighted = AtomicInnerProduct(torch.diag(torch.arange(1.0, D_IN + 1)))
    return {
        "r2": ExplainedVariance(D_IN),
        "r2_s": ExplainedVariance(D_IN, weighted),
        "r2_uncentred": ExplainedVariance(D_IN, centred=False),
    }


def vectors(group: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = 3 + torch.randn(3 + 2 * group, D_IN, generator=generator(50 + group))
    return x, x + 0.3 * torch.randn(x.shape, generator=generator(100 + group))


@pytest.mark.parametrize(
    ("build", "groups", "batch"),
    [
        (of_codes, None, lambda g: (codes(g),)),
        (of_codes, SHARING, lambda g: (codes(g),)),
        (of_vectors, [["r2", "r2_uncentred"], ["r2_s"]], vectors),
    ],
)
def test_a_replicate_is_the_metric_on_the_drawn_groups(
    build: Callable[[], dict[str, Metric]],
    groups: list[list[str]] | None,
    batch: Callable[[int], tuple[torch.Tensor, ...]],
) -> None:
    def collection() -> MetricCollection:
        return MetricCollection(build(), compute_groups=groups or False)

    made = GroupBootstrap(collection(), GROUPS)
    for group in (3, 0, 1, 4, 2):
        for part in zip(*(v.split(4) for v in batch(group)), strict=True):  # a group in several updates
            made.update(group, *part)
    names = [name for name in build() if name != "verdicts"]
    found = made.replicates(names, 20, seed=7)
    for i, drawn in enumerate(group_weights(GROUPS, 20, generator(7)).int().tolist()):
        expected = collection()
        for group, times in enumerate(drawn):
            for _ in range(times):
                expected.update(*batch(group))
        for name in names:
            torch.testing.assert_close(found[name][i], expected.compute()[name].double(), msg=f"{name}, {drawn}")
    everything = collection()
    for group in range(GROUPS):
        everything.update(*batch(group))
    whole = made.whole()
    assert set(whole) == set(names)
    assert whole == pytest.approx({name: everything.compute()[name].item() for name in names})


def test_the_metrics_stay_in_the_state_of_all_groups() -> None:
    made = GroupBootstrap(MetricCollection({"level_4": CertifiedRate(dictionary(), "dual_certificate")}), GROUPS)
    together = CertifiedRate(dictionary(), "dual_certificate")
    for group in range(GROUPS):
        made.update(group, codes(group))
        together.update(codes(group))
    made.replicates(["level_4"], 3, seed=0)
    rate = made.metrics["level_4"]
    assert isinstance(rate, CertifiedRate)
    torch.testing.assert_close(rate.by_size(), together.by_size(), equal_nan=True)


def test_a_sample_without_anything_to_measure_is_nan() -> None:
    rates = {
        "level_1": UniformlyCertifiedRate(dictionary(), "coherence"),
        "level_4": CertifiedRate(dictionary(), "dual_certificate"),
    }
    made = GroupBootstrap(MetricCollection(rates), 2)
    made.update(0, codes(2))
    made.update(1, torch.zeros(3, D_SAE))
    drawn = group_weights(2, 50, generator(0))
    for found in made.replicates(rates, 50, seed=0).values():
        assert found.isnan().tolist() == (drawn[:, 0] == 0).tolist()


@pytest.mark.parametrize("statistic", ["mean", "empty", "median", "q998"])
def test_a_group_without_vectors_has_no_sizes(statistic: Literal["mean", "empty", "median", "q998"]) -> None:
    made = GroupBootstrap(MetricCollection({"size": SupportSizes(D_SAE, statistic)}), 2)
    made.update(0, codes(2))
    made.update(1, torch.zeros(0, D_SAE))
    expected = SupportSizes(D_SAE, statistic)
    expected.update(codes(2))
    found = made.replicates(["size"], 50, seed=0)["size"]
    nothing = group_weights(2, 50, generator(0))[:, 0] == 0
    assert 0 < int(nothing.sum()) < 50
    assert torch.equal(found.isnan(), nothing)
    assert found[~nothing].unique().tolist() == [float(expected.compute())]


@pytest.mark.parametrize("metric", [ExplainedVariance(D_IN), CertifiedRate(dictionary(), "dual_certificate")])
def test_many_samples_are_computed_at_once(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand calls for each number took a third of the closing table of a small run."""
    made = GroupBootstrap(MetricCollection({"number": metric}), GROUPS)
    for group in range(GROUPS):
        made.update(group, *(vectors(group) if isinstance(metric, ExplainedVariance) else (codes(group),)))
    compute, calls = type(metric).compute, []
    monkeypatch.setattr(type(metric), "compute", lambda self: (calls.append(1), compute(self))[1])
    made.replicates(["number"], 1000, seed=0)
    assert len(calls) < 20
