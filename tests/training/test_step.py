"""A training step does the same whichever implementation it uses, however often it is cut and whatever Lightning adds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from atomlab.interop.checkpoint import read_checkpoint
from atomlab.sae import L0, Sparsity, Tanh, TargetL0
from atomlab.sae.ops import DensitySwitch
from tests.training.runs import assert_same, batches, fit, module

STEPS, CUT = 12, 4
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and resumed epochs


def between() -> DensitySwitch:
    """Limits between the densities at the start and at the end, so that the run switches on its way."""
    return DensitySwitch(0.13, 0.14)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_resumed_runs_are_the_uncut_run(tmp_path: Path, clip: float | None) -> None:
    data = batches(STEPS)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=CUT, save_top_k=-1)
    whole, again, continued = (module(between()) for _ in range(3))
    chosen = fit(whole, tmp_path, data, saver, gradient_clip_val=clip)
    assert chosen[0] is False  # dense at first,
    assert chosen[CUT] is False  # and still so where the run is cut:
    assert chosen[-1] is True  # the switch comes afterwards
    cut = tmp_path / f"step={CUT}.ckpt"
    assert read_checkpoint(cut)["global_step"] == CUT
    assert fit(again, tmp_path, data, gradient_clip_val=clip) == chosen
    assert_same(whole, again)
    assert fit(continued, tmp_path, data[CUT:], resume=cut, gradient_clip_val=clip) == chosen[CUT:]
    assert_same(whole, continued)


@pytest.mark.parametrize("sparsity", [L0(0.05), TargetL0(1.0, 4.0), Tanh(0.05)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value", "accumulate_grad_batches": 2},
    ],
    ids=str,
)
def test_accumulation_and_clipping_do_the_same_to_both(
    tmp_path: Path, sparsity: Sparsity, options: dict[str, Any]
) -> None:
    """In float64, where only the order of summation tells the two apart."""
    data = [batch.double() for batch in batches(STEPS)]
    dense, sparse = (module(DensitySwitch.of(word), sparsity) for word in ("dense", "sparse"))
    untouched = module(DensitySwitch.of("dense"), sparsity)
    options = options | {"precision": "64-true", "max_steps": STEPS // options.get("accumulate_grad_batches", 1)}
    assert not any(fit(dense, tmp_path, data, **options))
    assert all(fit(sparse, tmp_path, data, **options))
    for a, b in zip(sparse.sae.parameters(), dense.sae.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert torch.equal(sparse.since_fired, dense.since_fired)
    fit(untouched, tmp_path, data, precision="64-true")
    assert (untouched.sae.W_dec - dense.sae.W_dec).norm() > 1e-4 * dense.sae.W_dec.norm()  # the option does something


def test_dead_latents_are_those_that_did_not_fire(tmp_path: Path) -> None:
    found = module(DensitySwitch.of("sparse"))
    with torch.no_grad():
        found.sae.threshold[3] = 100.0
    options = {"precision": "bf16-mixed", "gradient_clip_val": 1.0, "accumulate_grad_batches": 2, "max_steps": 4}
    fit(found, tmp_path, batches(STEPS), **options)
    assert found.since_fired[3] == 8 * 128
    assert (found.since_fired[4:] < 8 * 128).any()
