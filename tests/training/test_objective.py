"""A run's objective is that of its last step, however the run came to it (faults.md D4)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from atomlab.metrics import ExplainedVariance
from atomlab.sae.ops import DensitySwitch
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.module import SAEModule
from atomlab.training.objective import objective_of_row, validation_objective
from tests.training.runs import QUIET, Stream, batches, module

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and resumed epochs
STEPS = 12


class Vectors(LightningDataModule):
    """Training vectors, and other ones for validation."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Stream(batches(STEPS)), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Stream(list(held_out().split(50))), batch_size=None)


def held_out() -> torch.Tensor:
    return torch.randn(300, 16, generator=torch.Generator().manual_seed(7)) / 4


def fitted(folder: Path, *callbacks: Callback, resume: Path | None = None, **options: Any) -> tuple[Trainer, SAEModule]:
    found = module(DensitySwitch.of("dense"))
    options = QUIET | {"enable_checkpointing": False, "max_steps": STEPS} | options
    trainer = Trainer(callbacks=[DecoderNorm(), *callbacks], default_root_dir=folder, **options)
    trainer.fit(found, Vectors(), ckpt_path=resume)
    return trainer, found


def expected(found: SAEModule) -> float:
    measure = ExplainedVariance(16, found.atomic)
    with torch.no_grad():
        measure.update(held_out(), found.folded()(held_out()))
    return float(measure.compute())


@pytest.mark.parametrize("interval", [STEPS, 5])
def test_it_is_measured_at_the_last_step_whatever_the_interval(tmp_path: Path, interval: int) -> None:
    trainer, found = fitted(tmp_path, val_check_interval=interval)
    assert found.validated is not None
    assert found.validated[0] == (STEPS if interval == STEPS else 10)
    assert validation_objective(trainer, found, Vectors()) == pytest.approx(expected(found), rel=1e-6)


def test_a_finished_run_that_is_resumed_has_one(tmp_path: Path) -> None:
    trainer, first = fitted(tmp_path, val_check_interval=STEPS)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer, again = fitted(tmp_path, resume=tmp_path / "last.ckpt", val_check_interval=STEPS)
    assert validation_objective(trainer, again, Vectors()) == pytest.approx(expected(first), rel=1e-6)


def test_without_validation_there_is_none_and_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, found = fitted(tmp_path, limit_val_batches=0)
    assert validation_objective(trainer, found, Vectors()) is None
    assert "no validation ran (trainer.limit_val_batches=0)" in capsys.readouterr().err


def test_an_objective_is_a_number_of_the_row(capfd: pytest.CaptureFixture[str]) -> None:
    row = {"unit": "atoms", "r2_s": 0.5, "r2_s_validation": 0.25, "d_sae": 64, "bands": [], "signed": True}
    assert objective_of_row(row, "r2_s_validation") == 0.25
    assert capfd.readouterr().err == ""
    assert objective_of_row(row, "d_sae") == 64.0
    assert "objective=d_sae is of held-out test vectors" in capfd.readouterr().err
    for key in ("r2s", "unit", "bands", "signed"):
        with pytest.raises(ValueError, match=f"objective={key} is no number of the atoms' row"):
            objective_of_row(row, key)
    with pytest.raises(ValueError, match=r"such as r2_s"):
        objective_of_row(row, "r2s")
