"""Options that cannot be are refused in one sentence that names key and value, before any data is there (C6)."""

import math
import re
from pathlib import Path

import jaxtyping
import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from atomlab.activations.store.moments import exact_moments
from atomlab.sae import L0, Incoherence, Tanh, TargetL0
from atomlab.training.build import build
from atomlab.training.callbacks import Throughput
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.recipe import (
    Architecture,
    Calibration,
    InitialAtoms,
    Revival,
    Schedule,
    TrainingRecipe,
    check_shrinkage,
)
from atomlab.training.trainer_checks import check_finished, check_trainer
from atomlab.training.vectors import VectorsDataModule
from tests.processes import one_sentence, run
from tests.tiny import OPTIONS
from tests.training.runs import QUIET

BAD = [
    (Architecture, "sae.expansion", [0, -1, None, "abc", math.inf, True]),
    (Architecture, "sae.bandwidth", [0, -0.1, None, math.nan]),
    (Architecture, "sae.inputs", ["white", None]),
    (Architecture, "sae.alpha", [-0.1, 1.5, None, True]),
    (InitialAtoms, "training.initial_atoms.source", ["", None, 3, [], ["run"], ["run", 3], ["run", "data"]]),
    (InitialAtoms, "training.initial_atoms.samples", [0, "many"]),
    (InitialAtoms, "training.initial_atoms.passes", [0]),
    (InitialAtoms, "training.initial_atoms.bound", [-0.1, 1.1]),
    (InitialAtoms, "training.initial_atoms.agreement", [-0.1, 1.1]),
    (Incoherence, "training.incoherence.coefficient", [-1.0, None, math.inf]),
    (Incoherence, "training.incoherence.bound", [-0.1, 1.1, None]),
    (Incoherence, "training.incoherence.rows", [0, 2.5, True]),
    (Incoherence, "training.incoherence.nearest", [0, 2.5, True]),
    (Incoherence, "training.incoherence.every", [0, 2.5, True]),
    (TrainingRecipe, "training.noise", [-0.1, None, math.nan]),
    (Calibration, "training.calibration.l0", [0, -3, "many"]),
    (Calibration, "training.calibration.samples", [0, -1]),
    (Schedule, "training.schedule.learning_rate", [0, -1.0, math.inf, "fast"]),
    (Schedule, "training.schedule.learning_rate_at_2304", [0, -1.0, None]),
    (Schedule, "training.schedule.threshold_learning_rate", [-1.0]),
    (Schedule, "training.schedule.warm_up", [-0.1, 1.1, None]),
    (Schedule, "training.schedule.decay", [-0.1, 2]),
    (Schedule, "training.schedule.freeze", [-0.5, 1.5]),
    (Revival, "training.revival.after", [0, -1]),
    (Revival, "training.revival.coefficient", [-1.0, None]),
    (TrainingRecipe, "training.implementation", ["fast"]),
]


@pytest.fixture(autouse=True)
def _without_shape_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests check annotations on every call; users do not, so these see the functions' own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("kind", "key", "value"), [(kind, key, value) for kind, key, values in BAD for value in values]
)
def test_values_that_no_data_could_train_with(kind: type, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{key}={value} ")):
        kind(**{key.rpartition(".")[2]: value})


@pytest.mark.parametrize("value", [-1e-3, None, math.inf])
def test_a_shrinkage_that_gives_no_metric(value: float) -> None:
    with pytest.raises(ValueError, match=f"^shrinkage={value} "):
        check_shrinkage(value)


def test_shares_at_the_ends_of_their_range_are_accepted() -> None:
    Schedule(warm_up=0, decay=1.0, freeze=1)


def test_the_learning_rate_falls_with_the_root_of_the_width_unless_it_is_given() -> None:
    assert Schedule().rates(2304) == pytest.approx((3e-3, 3e-3))
    assert Schedule(learning_rate_at_2304=6e-3).rates(4 * 2304) == pytest.approx((3e-3, 3e-3))
    assert Schedule(threshold_learning_rate=0.0).rates(576) == pytest.approx((6e-3, 0.0))
    assert Schedule(learning_rate=0.1, learning_rate_at_2304=6e-3).rates(9216) == (0.1, 0.1)


@pytest.mark.parametrize("value", [None, 0, -3, math.nan, "five"])
def test_sparsity_terms(value: object) -> None:
    """`training.sparsity.target=null` compared None with int, after the harvest."""
    with pytest.raises(ValueError, match=f"^training.sparsity.target={value} "):
        TargetL0(1.0, value)  # type: ignore[arg-type]
    if value != 0:
        for kind in (L0, Tanh):
            with pytest.raises(ValueError, match=f"^training.sparsity.coefficient={value} "):
                kind(value)  # type: ignore[arg-type]


def test_an_l0_beyond_the_dictionary_is_refused_when_its_size_is_known() -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    data = VectorsDataModule(x, exact_moments(x), batch_size=8, steps=1)
    with pytest.raises(ValueError, match=r"^training.calibration.l0=12.0 should be below d_sae=12"):
        build(data, Architecture(expansion=2.0), TrainingRecipe(calibration=Calibration(l0=12.0)))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precisions_in_which_thresholds_stand_still(precision: str) -> None:
    """B1: refused before the harvest."""
    with pytest.raises(ValueError, match=f"^trainer.precision={precision} "):
        check_trainer(Trainer(precision=precision, max_steps=1, **QUIET), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true", 32, 64])
def test_precisions_that_train(precision: object) -> None:
    check_trainer(Trainer(precision=precision, max_steps=1, **QUIET), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [0, -1])
def test_schedules_without_a_length(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^trainer.max_steps={steps} "):
        check_trainer(Trainer(max_steps=steps, **QUIET), steps)


@pytest.mark.parametrize(
    "option",
    [
        {"max_steps": 3}, {"accumulate_grad_batches": 0}, {"accumulate_grad_batches": -1}, {"limit_train_batches": 1},
        {"limit_train_batches": 0.5}, {"overfit_batches": 3}, {"fast_dev_run": True},
    ],
)  # fmt: skip
def test_trainers_that_would_take_other_steps(option: dict) -> None:
    """A7's kind: each of them trained less, or nothing, and the table stood under the full number of steps."""
    (name, value), *_ = option.items()
    with pytest.raises(ValueError, match=f"^trainer.{name}={value} "):
        check_trainer(Trainer(**{"max_steps": 9} | QUIET | option), 9)
    check_trainer(Trainer(max_steps=9, accumulate_grad_batches=2, **QUIET), 9)


class Halt(Callback):
    """Ends a training after two steps, as a limit of time does."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step == 2


@pytest.mark.parametrize("halted", [True, False])
def test_a_training_that_something_ended_is_not_measured(halted: bool) -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    data = VectorsDataModule(x, exact_moments(x), batch_size=8, steps=5)
    module = build(data, Architecture(expansion=2.0), TrainingRecipe(TargetL0(1.0, 2.0), Calibration(l0=2.0)))
    trainer = Trainer(
        max_steps=5, callbacks=[Halt()] if halted else [], enable_checkpointing=False, limit_val_batches=0, **QUIET
    )
    trainer.fit(module, data)
    if halted:
        with pytest.raises(ValueError, match=r"^The training ended at step 2 of 5 "):
            check_finished(trainer, 5)
    else:
        check_finished(trainer, 5)


def test_callbacks_that_would_never_act(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^callbacks.last.every=0 "):
        LastCheckpoint(str(tmp_path), every=0)
    with pytest.raises(ValueError, match=r"^callbacks.throughput.every=-1 "):
        Throughput(every=-1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["steps=0"], "steps=0"),
        (["shrinkage=-1"], "shrinkage=-1"),
        (["training.sparsity.target=null"], "training.sparsity.target=null"),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
        (["+trainer.limit_train_batches=5"], "trainer.limit_train_batches=5"),
        (["sample_sizes.solved=0"], "sample_sizes.solved=0"),
        (["activations.outliers.max_norm_ratio=0.1"], "activations.outliers.max_norm_ratio=0.1"),
        (["activations.harvest.shard_rows=0"], "activations.harvest.shard_rows=0"),
        (["activations.batches.window_rows=-1"], "activations.batches.window_rows=-1"),
        (["model.device=cuda"], "model.device=cuda is not here"),
    ],
)
def test_the_command_line_ends_in_the_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    """C6, B1: before the model is even looked for, which is not there."""
    finished = run("train.py", *OPTIONS, *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert said in one_sentence(finished)
