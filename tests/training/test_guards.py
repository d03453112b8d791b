"""A training that goes wrong says so while it runs, and loses nothing that was right."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from atomlab.interop.checkpoint import read_checkpoint
from atomlab.sae import L0, TargetL0
from atomlab.sae.ops import DensitySwitch
from atomlab.training.failed_training import TrainingFailedError
from atomlab.training.guards import Guards
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from tests.training.runs import batches, module
from tests.training.runs import fit as fit_once

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(found: SAEModule, folder: Path, data: list[torch.Tensor], *callbacks: Callback, **options: Any) -> None:
    fit_once(found, folder, data, *callbacks, enable_checkpointing=False, **options)


def trained(folder: Path, *callbacks: Callback, rate: float = 1e-2, coefficient: float | None = None) -> SAEModule:
    found = module(DensitySwitch.of("dense"), TargetL0(1.0, 4.0) if coefficient is None else L0(coefficient))
    found.recipe = replace(found.recipe, schedule=replace(found.recipe.schedule, learning_rate=rate))
    fit(found, folder, batches(60), Guards(every=5), *callbacks, max_steps=60)
    return found


class Change(Callback):
    """Changes a weight at the end of a step."""

    def __init__(self, step: int, name: str, value: float) -> None:
        self.step, self.name, self.value = step, name, value

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            getattr(pl_module.sae, self.name).fill_(self.value)


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        ({}, None, ""),
        ({"rate": 1e-12}, None, "the training learns nothing: R² was "),
        ({"coefficient": 1e3}, None, "the codes are becoming empty: L0 is 0.0"),
        ({}, ("b_enc", 50.0), "the codes are becoming dense: L0 is 64 of 64 latents at step 35, and was "),
    ],
)
def test_each_fault_is_said_once_and_a_usual_run_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, float], change: Any, said: str
) -> None:
    more = [] if change is None else [Change(step, *change) for step in range(30, 61)]
    trained(tmp_path, *more, **options)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("atomlab: ")]
    lines = [line for line in lines if "the training diverged" not in line]  # test_failed_training.py, at the end
    assert [line.startswith(f"atomlab: warning: {said}") for line in lines] == ([True] if said else [])


def damaged(*numbers: int) -> list[torch.Tensor]:
    data = batches(12)
    for number in numbers:
        data[number][5, 3] = (1e30, math.nan, math.inf)[number % 3]
    return data


class Weights(Callback):
    """All weights after each step."""

    def __init__(self) -> None:
        self.after: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.after.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))


@pytest.mark.parametrize("implementation", ["dense", "sparse"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_batches_that_are_not_finite_are_left_out_and_change_no_weight(
    tmp_path: Path, implementation: Any, clip: float | None
) -> None:
    """NaN, infinity, and a finite number whose square is infinite."""
    found, weights, guards = module(DensitySwitch.of(implementation)), Weights(), Guards(every=1, skip=3)
    moments: list[Any] = []

    class Moments(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
            moments.append(trainer.optimizers[0].state_dict()["state"])

    fit(found, tmp_path, damaged(3, 4, 8), guards, weights, Moments(), gradient_clip_val=clip)
    assert guards.skipped == 3
    rounding = 2.0**-23  # of a projection onto unit norms
    moved = [(weights.after[step] - weights.after[step - 1]).abs().max() for step in range(1, 12)]
    same = [step for step, largest in enumerate(moved, start=1) if largest <= rounding]
    assert same == [3, 4, 8]
    assert all(after.isfinite().all() for after in weights.after)
    assert {int(state["step"]) for state in moments[0].values()} == {9}
    assert not found.divergence.diverged


def test_one_more_than_allowed_ends_the_training_and_names_the_checkpoint(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), every=2)
    with pytest.raises(TrainingFailedError, match=r"^2 batches gave NaN or infinite gradients by step 8, and callb"):
        fit(module(DensitySwitch.of("dense")), tmp_path, damaged(3, 8), Guards(skip=1), last)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 8


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), every=2)
    good = rf"The checkpoint of step 4 is from before that: resume={tmp_path}/last.ckpt$"
    with pytest.raises(TrainingFailedError, match=rf"^The batch of step 5 has NaN .*\. {good}"):
        fit(module(DensitySwitch.of("dense")), tmp_path, damaged(5), Guards(), last)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), every=2)
    with pytest.raises(TrainingFailedError, match=r"^The weights are NaN or infinite after step 6, .* of step 4 is"):
        fit(module(DensitySwitch.of("dense")), tmp_path, batches(12), Change(6, "b_dec", math.nan), last)
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"last.ckpt", "previous.ckpt"}
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 4


@pytest.mark.parametrize(("options", "said"), [({"every": 0}, "every=0 should be 1"), ({"skip": -1}, "skip=-1 should")])
def test_options_out_of_range(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Guards(**options)


def test_what_was_seen_goes_on_with_the_run(tmp_path: Path) -> None:
    """A run that is cut in two says what the uncut one does."""
    cut, whole = Guards(every=5, skip=1), Guards(every=5, skip=1)
    data = damaged(3)
    fit(module(DensitySwitch.of("dense")), tmp_path / "whole", data, whole)
    saver = LastCheckpoint(str(tmp_path), every=7)
    fit(module(DensitySwitch.of("dense")), tmp_path, data, Guards(every=5, skip=1), saver)
    fit(module(DensitySwitch.of("dense")), tmp_path, data[7:], cut, resume=tmp_path / "previous.ckpt")
    assert cut.state_dict() == whole.state_dict()
