"""The cost model counts what a module really has, and docs/scaling.md prints what it says."""

from pathlib import Path

import pytest
import torch

from atomlab.sae import ThresholdSAE
from atomlab.training.cost_model import Machine, StepSizes, step_cost, step_seconds

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
    machine = Machine(0.5 * 989e12, 0.5 * 3.35e12, network)
    parts = step_seconds(StepSizes(3584, d_sae, 65_536, 50.0, latents=latents, replicas=replicas), machine)
    product, memory, exchange = parts["product"], parts["memory"], parts["latents"] + parts["replicas"]
    hours = (product + memory + exchange) * 10e9 / 65_536 / 3600
    line = f"| {product * 1e3:.0f}, {memory * 1e3:.0f}, {exchange * 1e3:.0f} ms | {hours:.1f} h |"
    assert line in DOCUMENT, line
