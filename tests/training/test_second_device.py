"""Step, measurement, metrics and units on tensors of a pretended device, which never meet tensors of the host (D1)."""

import math

import pytest
import torch
from torch import Tensor

from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import L0, InputTransform, Tanh, TargetL0, ThresholdSAE, calibrate_thresholds_, fold
from atomlab.sae.ops import Dense, Operators, Sparse, TorchKernels, objective
from atomlab.theory import AtomicInnerProduct
from atomlab.training.validation import Measurement
from atomlab.units import atoms, coded, data_nearest
from tests.metrics.test_contract import CASES
from tests.second_device import DEVICE, second_device

OPERATORS: dict[str, Operators] = {
    "dense": Dense(),
    "sparse": Sparse(TorchKernels(False)),
    "screened": Sparse(TorchKernels(True)),
}
X = torch.randn(96, 12, generator=torch.Generator().manual_seed(0))


def made() -> tuple[ThresholdSAE, AtomicInnerProduct]:
    torch.manual_seed(1)
    sae = ThresholdSAE(12, 24, bandwidth=0.2)
    calibrate_thresholds_(sae, X, 3.0)
    return sae, AtomicInnerProduct.from_second_moment((X.T @ X / len(X)).double())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("sparsity", [TargetL0(1.0, 2.0), L0(0.1), Tanh(0.1)], ids=str)
def test_a_step_with_dead_latents(name: str, sparsity: TargetL0 | L0 | Tanh) -> None:
    def gradients(sae: ThresholdSAE, x: Tensor, dead: Tensor) -> list[Tensor]:
        terms = objective(OPERATORS[name], sae, x, sparsity, dead, 0.1)
        terms.loss.backward()
        sae.remove_parallel_gradient_()
        sae.unit_norm_decoder_()
        sae.clamp_thresholds_()
        return [terms.code.firings().cpu(), *(p.grad.cpu() for p in sae.parameters() if p.grad is not None)]

    dead = torch.arange(24) % 3 == 1
    expected = gradients(made()[0], X, dead)
    with second_device():
        sae = made()[0].to(DEVICE)
        for a, b in zip(gradients(sae, X.to(DEVICE), dead.to(DEVICE)), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_a_validation() -> None:
    """D1: every run on a GPU died here, after its training."""

    def values(device: torch.device) -> dict[str, float]:
        sae, metric = made()
        transform = InputTransform.identity(12).to(device)
        folded = fold(sae.to(device), transform).with_unit_norm_decoder(metric.matrix.to(sae.W_dec))
        measurement = Measurement(folded, metric, SampleSizes(measured=60, dashboard=50), null=True)
        for batch in X.split(40):
            measurement.update(batch.to(device))
        return measurement.values()

    expected = values(torch.device("cpu"))
    with second_device():
        found = values(DEVICE)
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert math.isfinite(found["restricted_isometry_k_high"])


@pytest.mark.parametrize("name", CASES)
def test_metrics(name: str) -> None:
    build, batch = CASES[name]
    whole = build()
    whole.update(*batch(slice(None)))
    expected = whole.compute()
    with second_device():
        moved = build().to(DEVICE)
        moved.update(*(part.to(DEVICE) if isinstance(part, Tensor) else part for part in batch(slice(None))))
        found = moved.compute()
        pairs = [(found[key], expected[key]) for key in found] if isinstance(found, dict) else [(found, expected)]
        for a, b in pairs:
            torch.testing.assert_close(a.cpu(), b.cpu(), equal_nan=True)


@pytest.mark.parametrize("name", ["atoms", "nearest", "pursuit"])
def test_units(name: str) -> None:
    """Their codes and reconstructions; the closing table itself is measured on the host."""

    def on(device: torch.device) -> list[Tensor]:
        sae, metric = made()
        x = X.to(device)
        mean, dictionary = x.mean(0), x[:24] - x.mean(0)
        units = {
            "atoms": lambda: atoms(sae.to(device)),
            "nearest": lambda: data_nearest(dictionary, mean, metric),
            "pursuit": lambda: coded("pursuit", sae.to(device), "threshold_pursuit", 3.0, x, metric),
        }
        unit = units[name]()
        codes = unit.encode(x)
        return [codes.to_dense().cpu(), unit.decode(codes).cpu()]

    expected = on(torch.device("cpu"))
    with second_device():
        for a, b in zip(on(DEVICE), expected, strict=True):
            torch.testing.assert_close(a, b)
