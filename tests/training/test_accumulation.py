"""`steps` are the optimiser's, however many batches each of them gathers gradients over (faults.md A7)."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from atomlab.activations.store.moments import exact_moments
from atomlab.interop.checkpoint import read_checkpoint
from atomlab.sae import L0, Incoherence, Sparsity, Tanh, TargetL0
from atomlab.sae.ops import DensitySwitch
from atomlab.training.build import build
from atomlab.training.callbacks import DataWait, DecoderNorm, Throughput
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Architecture, Calibration, InitialAtoms, Schedule, TrainingRecipe
from atomlab.training.vectors import VectorsDataModule
from tests.training.runs import QUIET, assert_same, batches, fit, module

STEPS = 10
X = torch.randn(1280, 12, generator=torch.Generator().manual_seed(0))


class Record(Callback):
    """The learning rates of each batch, the steps at which thresholds moved, and those of the saved checkpoints."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.steps: list[int] = []
        self.moved: list[bool] = []
        self.before = torch.empty(0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: torch.Tensor, batch_idx: int) -> None:
        self.before = pl_module.sae.threshold.detach().clone()
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: torch.Tensor, batch_idx: int
    ) -> None:
        self.steps.append(trainer.global_step)
        self.moved.append(not torch.equal(self.before, pl_module.sae.threshold))


def run(
    folder: Path, accumulate: int, batch_size: int, sparsity: Sparsity, *callbacks: Callback
) -> tuple[SAEModule, Record]:
    record = Record()
    data = VectorsDataModule(X, exact_moments(X), batch_size=batch_size, steps=STEPS)
    torch.manual_seed(0)
    schedule = Schedule(learning_rate=0.01, warm_up=0.2, freeze=0.2)
    without: dict[str, Any] = {
        "noise": 0.0,
        "incoherence": Incoherence(0.0),
    }  # drawn for each batch, so others for halves of it
    without |= {"initial_atoms": InitialAtoms("random")}
    recipe = TrainingRecipe(sparsity, Calibration(l0=5.0), schedule, implementation="dense", **without)
    found = build(data, Architecture(expansion=2, tied=False), recipe)
    trainer = Trainer(
        callbacks=[DecoderNorm(), record, *callbacks], default_root_dir=folder, precision="64-true", max_steps=STEPS,
        accumulate_grad_batches=accumulate, limit_val_batches=0, enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(found, data)
    assert trainer.global_step == STEPS
    return found, record


@pytest.mark.parametrize("sparsity", [L0(0.05), Tanh(0.05)], ids=str)
def test_halves_of_a_batch_are_the_batch(tmp_path: Path, sparsity: Sparsity) -> None:
    """Reconstruction, L0 and Tanh are means over vectors: two batches of 64 give the gradient of the 128 together. In
    float64 only the order of summation tells the two apart: gradients differ by about 1e-16, and Adam divides them by
    |g| + 1e-8, so each of 10 steps of 0.01 may differ by 1e-9 where g is about 0."""
    halves, record = run(tmp_path, 2, 64, sparsity)
    whole, alone = run(tmp_path, 1, 128, sparsity)
    for name, value in halves.sae.state_dict().items():
        torch.testing.assert_close(value, whole.sae.state_dict()[name], rtol=0, atol=2e-8)
    assert torch.equal(halves.since_fired, whole.since_fired)
    assert record.rates[::2] == alone.rates
    assert record.rates[1::2] == alone.rates


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_schedule_ends_and_thresholds_freeze(tmp_path: Path, accumulate: int) -> None:
    """A7: half of the steps were done, the rate ended at its maximum, and the end phase never came."""
    _, record = run(tmp_path, accumulate, 64, TargetL0(1.0, 4.0))
    assert len(record.rates) == STEPS * accumulate
    for batch, (rate, threshold_rate) in enumerate(record.rates):
        share = (batch // accumulate) / STEPS
        assert rate == pytest.approx(0.01 * min(1, (batch // accumulate + 1) / 2, (1 - share) / 0.5))
        assert (threshold_rate > 0) == (share < 0.8)
    assert record.rates[-1][0] == pytest.approx(0.01 * 0.1 / 0.5)
    stepped = range(accumulate - 1, STEPS * accumulate, accumulate)
    assert [batch for batch, moved in enumerate(record.moved) if moved] == list(stepped)[:8]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on resumed epochs
def test_checkpoints_lie_between_steps_and_a_resumed_run_is_the_uncut_one(tmp_path: Path) -> None:
    """Gradients gathered within a step are in no checkpoint: `every` and a signal wait for the step's last batch."""

    class Stop(Callback):
        """Asks for an end within a step, as a signal does."""

        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: torch.Tensor, batch_idx: int) -> None:
            saver.signals.asked = signal.SIGTERM if batch_idx >= 7 else 0  # the second batch of the third step

    data, options = batches(30), {"accumulate_grad_batches": 3, "max_steps": STEPS}
    whole, cut, again = (module(DensitySwitch.of("dense")) for _ in range(3))
    fit(whole, tmp_path, data, **options)
    saver = LastCheckpoint(str(tmp_path), every=1000)
    with pytest.raises(SystemExit):
        fit(cut, tmp_path, data, Stop(), saver, **options)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
    fit(again, tmp_path, data[9:], resume=tmp_path / "last.ckpt", **options)
    assert_same(whole, again)


def test_every_so_many_steps_means_the_optimisers(tmp_path: Path) -> None:
    saved: list[int] = []

    class Saved(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            saved.append(saver.saved)

    saver, throughput = LastCheckpoint(str(tmp_path), every=4), Throughput(every=2)
    run(tmp_path, 2, 64, TargetL0(1.0, 4.0), throughput, DataWait(), saver, Saved())
    assert saved == [-1] * 7 + [4] * 8 + [8] * 5
    assert throughput.seen == 0
