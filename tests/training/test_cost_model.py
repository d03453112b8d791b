"""The cost model counts what a module really has, and docs/scaling.md prints what it says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from atomlab.sae import TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import Sparse, objective
from atomlab.sae.ops.torch_kernels import TorchKernels
from atomlab.training.cost_model import ASSUMED, StepSizes, step_cost, step_seconds
from atomlab.training.forecast import _step

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
NODE, NETWORK = 300e9, 40e9  # bytes/s, as the document assumes


@pytest.mark.parametrize("tied", [True, False])
def test_the_state_is_that_of_weights_gradients_and_two_means(tied: bool) -> None:
    sae = ThresholdSAE(6, 20, tied=tied)
    optimizer = torch.optim.Adam(sae.parameters())
    sae(torch.randn(9, 6)).square().sum().backward()
    optimizer.step()
    held = [*sae.parameters(), *(p.grad for p in sae.parameters() if p.grad is not None)]
    held += [mean for state in optimizer.state.values() for mean in (state["exp_avg"], state["exp_avg_sq"])]
    sizes = StepSizes(6, 20, 64, 3.0, matrices=1 if tied else 2)
    assert step_cost(sizes).state_bytes == sum(value.nbytes for value in held)


@pytest.mark.parametrize(("latents", "replicas"), [(1, 1), (4, 1), (1, 2), (2, 2)])
def test_the_products_of_a_sparse_step_are_those_that_torch_counts(latents: int, replicas: int) -> None:
    """One process's share of a step: its rows of a batch of 64, its latents of 256."""
    torch.manual_seed(0)
    sae, x = ThresholdSAE(32, 256 // latents, tied=True), torch.randn(64 // replicas, 32)
    calibrate_thresholds_(sae, x, 6.0 / latents)
    with FlopCounterMode(display=False) as counted:
        objective(Sparse(TorchKernels(False)), sae, x, TargetL0(1.0, 6.0 / latents), None, 0.0).loss.backward()
    cost = step_cost(StepSizes(32, 256, 64, 6.0, latents=latents, replicas=replicas))
    assert counted.get_total_flops() == cost.product_flops


@pytest.mark.parametrize(
    ("sizes", "longest"),
    [
        (StepSizes(3584, 2**20, 65_536, 50.0), "product"),
        (StepSizes(3584, 2**20, 65_536, 50.0, replicas=8), "memory"),
        (StepSizes(3584, 2**20, 65_536, 50.0, latents=512), "exchange of reconstructions"),
    ],
)
def test_a_forecast_names_the_longest_part(sizes: StepSizes, longest: str) -> None:
    """By hand, at 494.5 TFLOP/s, 1.675 TB/s and 300 GB/s, in ms: products 997, memory 453; 125, 159 and gradients 88; 2, 1 and
    reconstructions 6."""
    assert _step(sizes).endswith(f"the longest part is {longest}")


def test_the_exchange_does_not_depend_on_the_width_and_nobody_exchanges_with_himself() -> None:
    wide, narrow = (step_cost(StepSizes(8, d_sae, 64, 3.0, latents=4, replicas=2)) for d_sae in (4096, 64))
    assert wide.latents_bytes == narrow.latents_bytes == 4 * 32 * 8
    assert wide.product_flops == 64 * narrow.product_flops
    alone = step_cost(StepSizes(8, 64, 64, 3.0))
    assert alone.latents_bytes == alone.replicas_bytes == 0


@pytest.mark.parametrize(
    ("d_sae", "latents", "replicas", "network"),
    [
        (2**20, 1, 8, NODE),
        (2**20, 8, 1, NODE),
        (2**20, 64, 1, NETWORK),
        (2**24, 64, 1, NETWORK),
        (2**24, 16, 1, NETWORK),
    ],
)
def test_the_document_prints_what_the_model_says(d_sae: int, latents: int, replicas: int, network: float) -> None:
    machine = replace(ASSUMED, network=network)
    parts = step_seconds(StepSizes(3584, d_sae, 65_536, 50.0, latents=latents, replicas=replicas), machine)
    product, memory, exchange = parts["product"], parts["memory"], parts["latents"] + parts["replicas"]
    hours = (product + memory + exchange) * 10e9 / 65_536 / 3600
    line = f"| {product * 1e3:.0f}, {memory * 1e3:.0f}, {exchange * 1e3:.0f} ms | {hours:.1f} h |"
    assert line in DOCUMENT, line
