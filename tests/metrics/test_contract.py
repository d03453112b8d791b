"""One contract for every metric: any split of the stream, `forward`, pickling, bfloat16 and two uneven processes give the same value."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import Metric

from atomlab.metrics import (
    CertifiedRate,
    DeadLatents,
    ExplainedVariance,
    L0Histogram,
    MeanL0,
    MutualCoherence,
    RestrictedIsometry,
    Stability,
)
from atomlab.theory import AtomicInnerProduct

D_IN, D_SAE, SAMPLES = 8, 12, 40


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dictionary() -> torch.Tensor:
    return torch.cat([torch.eye(D_IN), 0.2 * torch.randn(D_SAE - D_IN, D_IN, generator=generator())])


def codes() -> torch.Tensor:
    values = torch.rand(SAMPLES, D_SAE, generator=generator())
    values = values * (values > 0.8)
    values[:, 3] = 0
    return values


def stream() -> torch.Tensor:
    return 1000 + torch.randn(SAMPLES, D_IN, generator=generator())


def metric() -> AtomicInnerProduct:
    return AtomicInnerProduct(torch.diag(torch.arange(1.0, D_IN + 1)))


Case = tuple[Callable[[], Metric], Callable[[slice], tuple]]
CASES: dict[str, Case] = {
    "r2": (lambda: ExplainedVariance(D_IN), lambda s: (stream()[s], stream()[s] + 0.5 * stream()[s].sin())),
    "r2_s": (lambda: ExplainedVariance(D_IN, metric()), lambda s: (stream()[s], stream()[s] + 0.5 * stream()[s].sin())),
    "mean_l0": (MeanL0, lambda s: (codes()[s],)),
    "l0_histogram": (lambda: L0Histogram(D_SAE), lambda s: (codes()[s],)),
    "dead": (lambda: DeadLatents(D_SAE), lambda s: (codes()[s],)),
    "level_1": (lambda: CertifiedRate(dictionary(), 1, metric()), lambda s: (codes()[s],)),
    "level_4": (lambda: CertifiedRate(dictionary(), 4, metric()), lambda s: (codes()[s],)),
    "pairwise": (lambda: Stability(dictionary(), "pairwise"), lambda s: (codes()[s],)),
    "per_atom": (lambda: Stability(dictionary(), "per_atom"), lambda s: (codes()[s],)),
    "coherence": (lambda: MutualCoherence(metric()), lambda s: (dictionary(),)),
    "isometry": (lambda: RestrictedIsometry(metric()), lambda s: (dictionary(), 3)),
}


def whole(name: str) -> torch.Tensor:
    build, batch = CASES[name]
    made = build()
    made.update(*batch(slice(None)))
    return made.compute()


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
    torch.save(values, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_batches(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(value, whole(name), msg=lambda m, name=name: f"{name}: {m}")


def test_values_against_independent_formulas() -> None:
    x, x_hat = CASES["r2"][1](slice(None))
    centred = x.double() - x.double().mean(0)
    expected = 1 - (x.double() - x_hat.double()).square().sum() / centred.square().sum()
    torch.testing.assert_close(whole("r2"), expected)
    weights = torch.arange(1.0, D_IN + 1).double()
    expected = 1 - ((x.double() - x_hat.double()).square() * weights).sum() / (centred.square() * weights).sum()
    torch.testing.assert_close(whole("r2_s"), expected)
    active = codes() != 0
    assert whole("mean_l0").item() == pytest.approx(active.sum().item() / SAMPLES)
    assert whole("dead").item() == pytest.approx((active.sum(0) == 0).double().mean().item())
    assert whole("l0_histogram").tolist() == [(active.sum(1) == k).sum().item() for k in range(D_SAE + 1)]
    assert 0 < whole("level_1") <= whole("level_4") <= 1


def test_bfloat16_input_is_summed_in_float64() -> None:
    measure, x = ExplainedVariance(D_IN), stream().bfloat16()
    measure.update(x, torch.zeros_like(x))
    x64 = x.double()
    torch.testing.assert_close(measure.compute(), 1 - x64.square().sum() / (x64 - x64.mean(0)).square().sum())


def test_a_constant_stream_and_empty_codes_are_nan() -> None:
    measure = ExplainedVariance(2)
    measure.update(torch.ones(3, 2), torch.ones(3, 2))
    assert measure.compute().isnan()
    rate = CertifiedRate(dictionary(), 1)
    rate.update(torch.zeros(3, D_SAE))
    assert rate.compute().isnan()
    assert rate.empty == 3
