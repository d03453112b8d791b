"""The last two checkpoints of a run are kept, and a full disk costs the run none of them."""

import errno
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from atomlab.interop.checkpoint import read_checkpoint
from atomlab.sae.ops import DensitySwitch
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from tests.small_disk import needs_root, small_disk
from tests.training.runs import QUIET, Stream, assert_same, batches, module


class Line(LightningModule):
    """The smallest thing that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(50_000))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.slope.mean() - batch.mean()).square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(last: LastCheckpoint, steps: int = 6) -> None:
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[last],
    )  # fmt: skip
    trainer.fit(Line(), DataLoader(torch.ones(steps, 1)))  # type: ignore[arg-type]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 500 kB: two checkpoints of 200 kB, and no third."""
    with small_disk(tmp_path / "disk", "500k") as folder:
        yield folder


@needs_root
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """faults.md E4: no half file stays, the old checkpoints do, every failure is said, and at last it is an error."""
    last = LastCheckpoint(str(disk), every=2)
    with caplog.at_level(logging.WARNING):
        train(last)
    assert {file.name for file in disk.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert read_checkpoint(disk / "previous.ckpt")["global_step"] == 2
    assert read_checkpoint(disk / "last.ckpt")["global_step"] == 4
    said = [record.getMessage() for record in caplog.records if record.name == LastCheckpoint.__module__]
    assert len(said) == 2  # at step 6, and again at the end
    assert all(os.strerror(errno.ENOSPC) in each and "the training goes on" in each for each in said)
    assert said[0].endswith(f"{disk}/last.ckpt keeps that of step 4.")
    with pytest.raises(OSError, match=r"checkpoint of step 6 could not be written .* the results are complete"):
        last.require_saved()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), every=2)
    for left in (".writing-1-last.ckpt", ".tmpvOwbNO"):  # ours, and the file that safetensors renames
        (tmp_path / left).write_bytes(b"of a killed run")
    train(last)
    last.require_saved()
    assert {file.name for file in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert [read_checkpoint(tmp_path / f"{name}.ckpt")["global_step"] for name in ("previous", "last")] == [4, 6]


def validated(folder: Path, *, values: list[float], resume: Path | None = None, done: int = 0) -> SAEModule:
    """12 steps, with a validation after every fourth, whose R² in the S-norm are the values."""
    found, last = module(DensitySwitch.of("dense")), LastCheckpoint(str(folder), every=5)

    class Scores(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            pl_module.validated = (trainer.global_step, values[trainer.global_step // 4 - 1])

        on_validation_end = on_validation_epoch_end  # before `last` looks

    options = {"max_steps": 12, "val_check_interval": 4, "enable_checkpointing": False, "default_root_dir": folder}
    trainer = Trainer(callbacks=[DecoderNorm(), Scores(), last], **QUIET | options)  # type: ignore[arg-type]
    parts = (DataLoader(Stream(part), batch_size=None) for part in (batches(12)[done:], batches(2)))
    trainer.fit(found, *parts, ckpt_path=resume)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("values", "best"), [([1, 3, 2], 8), ([3, 1, 2], 4), ([1, 2, 3], 12)])
def test_the_best_of_several_validations_is_kept_and_a_run_goes_on_from_it(
    tmp_path: Path, values: list[float], best: int
) -> None:
    whole = validated(tmp_path, values=values)
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert read_checkpoint(tmp_path / "best.ckpt")["global_step"] == best
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 12
    kept = LastCheckpoint(str(tmp_path))
    kept.load_state_dict({"best": 3.0})
    moved = LastCheckpoint(str(tmp_path / "new"))
    moved.load_state_dict({"best": 3.0})
    assert (kept.best, moved.best) == (3.0, -math.inf)
    if best < 12:
        again = validated(tmp_path / "again", values=values, resume=tmp_path / "best.ckpt", done=best)
        assert_same(whole, again)
