"""One contract for every metric: any split of the stream, `forward`, pickling, bfloat16 and two uneven processes give
the same value.
"""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import Metric

import atomlab.metrics
from atomlab.metrics import (
    CertifiedRate,
    CodeIsometry,
    ExplainedQuantile,
    ExplainedVariance,
    FiringShare,
    IsometryRates,
    LossRecovered,
    MatchedCosine,
    NextTokenKL,
    RefittedExplainedVariance,
    RepresentationShift,
    RestrictedIsometry,
    Stability,
    SupportRecoveryRate,
    SupportSizes,
    UniformlyCertifiedRate,
    WindowRate,
)
from atomlab.theory import (
    AtomicInnerProduct,
    Geometry,
    RestrictedIsometryCurve,
    recovery_levels,
    restricted_isometry_curve,
)

D_IN, D_SAE, SAMPLES = 8, 12, 40


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dictionary() -> torch.Tensor:
    return torch.cat([torch.eye(D_IN), 0.2 * torch.randn(D_SAE - D_IN, D_IN, generator=generator())])


def codes() -> torch.Tensor:
    values = torch.rand(SAMPLES, D_SAE, generator=generator())
    values = values * (values > 0.8)
    values[:, 3] = 0  # a latent that never fires, one that fires once, and a vector on which none does
    values[:, 7] = 0
    values[11] = 0
    values[20, 7] = 1
    return values


def stream() -> torch.Tensor:
    return 1000 + torch.randn(SAMPLES, D_IN, generator=generator())


def metric() -> AtomicInnerProduct:
    return AtomicInnerProduct(torch.diag(torch.arange(1.0, D_IN + 1)))


def vocabulary(seed: int) -> torch.Tensor:
    return torch.randn(SAMPLES, 30, generator=torch.Generator().manual_seed(seed))


def wide() -> torch.Tensor:
    """So many atoms that not all supports of 6 of them are tried."""
    return torch.randn(40, D_IN, generator=generator())


def own_supports() -> torch.Tensor:
    return torch.rand(SAMPLES, 40, generator=generator()).argsort(1)[:, :6]


def curve() -> RestrictedIsometryCurve:
    return restricted_isometry_curve(dictionary(), 6, metric(), generator=generator())


def thresholds() -> torch.Tensor:
    return torch.full((D_SAE,), 0.7)


def on_codes(build: Callable[[], Metric]) -> "Case":
    return build, lambda s: (codes()[s],)


def on_reconstructions(build: Callable[[], Metric]) -> "Case":
    return build, lambda s: (stream()[s], stream()[s] + 0.5 * stream()[s].sin())


Case = tuple[Callable[[], Metric], Callable[[slice], tuple]]
CASES: dict[str, Case] = {
    "r2": on_reconstructions(lambda: ExplainedVariance(D_IN)),
    "r2_s": on_reconstructions(lambda: ExplainedVariance(D_IN, metric())),
    "r2_uncentred": on_reconstructions(lambda: ExplainedVariance(D_IN, centred=False)),
    "r2_refitted": (
        lambda: RefittedExplainedVariance(dictionary(), torch.full((D_IN,), 1000.0), metric()),
        lambda s: (stream()[s], codes()[s]),
    ),
    "share_q10": on_reconstructions(lambda: ExplainedQuantile(stream().mean(0), 0.1)),
    "share_median": on_reconstructions(lambda: ExplainedQuantile(stream().mean(0), 0.5, metric())),
    "l0": on_codes(lambda: SupportSizes(D_SAE, "mean")),
    "l0_median": on_codes(lambda: SupportSizes(D_SAE, "median")),
    "l0_q998": on_codes(lambda: SupportSizes(D_SAE, "q998")),
    "empty": on_codes(lambda: SupportSizes(D_SAE, "empty")),
    "dead": on_codes(lambda: FiringShare(D_SAE, 0)),
    "single_sample": on_codes(lambda: FiringShare(D_SAE, 1)),
    "level_1": on_codes(lambda: UniformlyCertifiedRate(dictionary(), "coherence", metric())),
    "level_2a": on_codes(lambda: UniformlyCertifiedRate(dictionary(), "babel_unique", metric())),
    "level_2b": on_codes(lambda: UniformlyCertifiedRate(dictionary(), "babel_recovery", metric())),
    "level_3": on_codes(lambda: CertifiedRate(dictionary(), "exact_recovery", metric())),
    "level_4": on_codes(lambda: CertifiedRate(dictionary(), "dual_certificate", metric())),
    "level_5": on_codes(lambda: CertifiedRate(dictionary(), "solved", metric())),
    "isometry_rates": on_codes(lambda: IsometryRates(curve(), D_SAE, 0.9)),
    "isometry_ratio": on_codes(lambda: CodeIsometry(dictionary(), "ratio", metric())),
    "isometry_own": on_codes(lambda: CodeIsometry(dictionary(), "constant", metric())),
    "pairwise": on_codes(lambda: Stability(dictionary(), "pairwise")),
    "per_atom": on_codes(lambda: Stability(dictionary(), "per_atom")),
    "window": on_codes(lambda: WindowRate(dictionary(), metric())),
    "support_recovery": (
        lambda: SupportRecoveryRate(dictionary(), thresholds(), metric()),
        lambda s: ((codes() @ dictionary())[s], codes()[s]),
    ),
    "shift": (
        lambda: RepresentationShift(Geometry(None, metric())),
        lambda s: (stream()[s], stream()[:5].flip(1)),
    ),
    "isometry": (lambda: RestrictedIsometry(metric(), samples=2), lambda s: (wide(), 6, own_supports()[s])),
    "matched": (lambda: MatchedCosine(metric()), lambda s: (dictionary(), dictionary().flip(1))),
    "loss_recovered": (LossRecovered, lambda s: tuple(vocabulary(i)[s, 0].exp() for i in range(4))),
    "kl": (NextTokenKL, lambda s: (vocabulary(0)[s], vocabulary(1)[s])),
}


def test_every_metric_has_a_case() -> None:
    assert {type(build()).__name__ for build, _ in CASES.values()} == set(atomlab.metrics.__all__)


def whole(name: str) -> torch.Tensor:
    build, batch = CASES[name]
    made = build()
    made.update(*batch(slice(None)))
    return made.compute()


@pytest.mark.parametrize("name", CASES)
def test_before_any_update_there_is_no_value(name: str) -> None:
    if name in ("dead", "single_sample"):  # counts
        return
    values = nothing(CASES[name][0]())
    assert all(value.isnan().all() for value in values)


def nothing(made: Metric) -> list[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method")  # torchmetrics: before update
        value = made.compute()
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cuts", [(7,), (1, 2, 39)])
def test_any_split_forward_and_pickle(name: str, cuts: tuple[int, ...]) -> None:
    build, batch = CASES[name]
    made = build()
    for start, stop in zip((0, *cuts), (*cuts, SAMPLES), strict=True):
        made(*batch(slice(start, stop)))
        made = pickle.loads(pickle.dumps(made))
    torch.testing.assert_close(made.compute(), whole(name), equal_nan=True)
    made.reset()
    made.update(*batch(slice(None)))
    torch.testing.assert_close(made.compute(), whole(name), equal_nan=True)


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    values = {}
    for name, (build, batch) in CASES.items():
        made = build()
        for part in [slice(0, 5), slice(5, 9), slice(9, 33)] if rank == 0 else [slice(33, SAMPLES)]:
            made.update(*batch(part))
        values[name] = made.compute()
        if isinstance(made, CertifiedRate | UniformlyCertifiedRate):
            values[f"{name}_by_size"] = made.by_size()
    torch.save(values, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_batches(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            alone = by_size(name) if name.endswith("_by_size") else whole(name)
            torch.testing.assert_close(value, alone, msg=lambda m, name=name: f"{name}: {m}", equal_nan=True)


def by_size(name: str) -> torch.Tensor:
    build, batch = CASES[name.removesuffix("_by_size")]
    made = build()
    assert isinstance(made, CertifiedRate | UniformlyCertifiedRate)
    made.update(*batch(slice(None)))
    return made.by_size()


def test_values_against_independent_formulas() -> None:
    x, x_hat = CASES["r2"][1](slice(None))
    centred = x.double() - x.double().mean(0)
    expected = 1 - (x.double() - x_hat.double()).square().sum() / centred.square().sum()
    torch.testing.assert_close(whole("r2"), expected)
    weights = torch.arange(1.0, D_IN + 1).double()
    expected = 1 - ((x.double() - x_hat.double()).square() * weights).sum() / (centred.square() * weights).sum()
    torch.testing.assert_close(whole("r2_s"), expected)
    centred = x.double() - x.mean(0).double()
    shares = 1 - (x.double() - x_hat.double()).square().sum(1) / centred.square().sum(1)
    assert whole("share_q10").item() == pytest.approx(np.quantile(shares.numpy(), 0.1))
    shares = 1 - ((x.double() - x_hat.double()).square() @ weights) / (centred.square() @ weights)
    assert whole("share_median").item() == pytest.approx(np.median(shares.numpy()))
    active = codes() != 0
    sizes = active.sum(1).double()
    assert whole("l0").item() == pytest.approx(sizes.mean().item())
    assert whole("l0_median").item() == sizes.sort().values[SAMPLES // 2 - 1].item() != sizes.max().item()
    assert whole("l0_q998").item() == sizes.max().item()  # of 40 vectors
    assert whole("empty").item() == (sizes == 0).double().mean().item() >= 1 / SAMPLES
    assert (whole("dead").item(), whole("single_sample").item()) == (1 / D_SAE, 1 / D_SAE)


def test_certified_rates_are_shares_of_the_codes_that_have_atoms() -> None:
    """Against the theory's verdicts on every code; the levels differ, so that none can stand for another."""
    found = recovery_levels(codes(), dictionary(), metric())
    alive = found.sizes > 0
    assert 0 < alive.sum() < SAMPLES
    names = {"1": "coherence", "2a": "babel_unique", "2b": "babel_recovery", "3": "exact_recovery"}
    names |= {"4": "dual_certificate", "5": "solved"}
    expected = {level: getattr(found, name)[alive].double().mean().item() for level, name in names.items()}
    assert {level: whole(f"level_{level}").item() for level in names} == pytest.approx(expected)
    assert expected["1"] < expected["3"] < expected["4"]


def test_bfloat16_input_is_summed_in_float64() -> None:
    measure, x = ExplainedVariance(D_IN), stream().bfloat16()
    measure.update(x, torch.zeros_like(x))
    x64 = x.double()
    torch.testing.assert_close(measure.compute(), 1 - x64.square().sum() / (x64 - x64.mean(0)).square().sum())


def test_a_constant_stream_and_empty_codes_are_nan() -> None:
    measure = ExplainedVariance(2)
    measure.update(torch.ones(3, 2), torch.ones(3, 2))
    assert measure.compute().isnan()
    rate = CertifiedRate(dictionary(), "dual_certificate")
    rate.update(torch.zeros(3, D_SAE))
    assert rate.compute().isnan()
    assert rate.counts[0] == 3
