"""Options that cannot be are refused in one sentence that names key and value, before any data is there (C6)."""

import math
from pathlib import Path

import jaxtyping
import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback

from atomlab.evaluation.surrogates import VectorsDataModule, exact_moments
from atomlab.sae import L0, Tanh, TargetL0
from atomlab.training.callbacks import Throughput
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import build
from atomlab.training.options import check_values
from atomlab.training.trainer_checks import check_finished, check_trainer
from tests.processes import one_sentence, run
from tests.test_config import composed
from tests.tiny import OPTIONS
from tests.training.runs import QUIET

BAD = [
    ("expansion", [0, -1, None, "abc", math.inf, True]),
    ("bandwidth", [0, -0.1, None, math.nan]),
    ("initial_l0", [0, -3, None]),
    ("calibration_samples", [0, -1]),
    ("shrinkage", [-1e-3, None]),
    ("learning_rate", [0, -1.0, math.inf, "fast"]),
    ("threshold_learning_rate", [-1.0]),
    ("warm_up", [-0.1, 1.1, None]),
    ("decay", [-0.1, 2]),
    ("freeze", [-0.5, 1.5]),
    ("dead_after", [0, -1]),
    ("dead_coefficient", [-1.0, None]),
    ("inputs", ["white", None]),
    ("implementation", ["fast"]),
]


@pytest.fixture(autouse=True)
def _without_shape_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests check annotations on every call; users do not, so these see the functions' own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_options_of_the_sae(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^sae\.{name}={value} "):
        check_values({name: value})


def test_the_configuration_as_it_comes_is_accepted() -> None:
    check_values(composed([]).sae)
    check_values({"warm_up": 0, "decay": 1.0, "freeze": 1, "learning_rate": None, "another": "word"})


@pytest.mark.parametrize("value", [None, 0, -3, math.nan, "five"])
def test_sparsity_terms(value: object) -> None:
    """`sae.sparsity.target=null` compared None with int, after the harvest."""
    with pytest.raises(ValueError, match=f"^sae.sparsity.target={value} "):
        TargetL0(1.0, value)  # type: ignore[arg-type]
    if value != 0:
        for kind in (L0, Tanh):
            with pytest.raises(ValueError, match=f"^sae.sparsity.coefficient={value} "):
                kind(value)  # type: ignore[arg-type]


def test_an_l0_beyond_the_dictionary_is_refused_when_its_size_is_known() -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    data = VectorsDataModule(x, exact_moments(x), batch_size=8, steps=1)
    with pytest.raises(ValueError, match=r"^sae.initial_l0=12.0 should be below d_sae=12"):
        build(data, TargetL0(1.0, 12.0), expansion=2.0, initial_l0=12.0)


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
    module = build(data, TargetL0(1.0, 2.0), expansion=2.0, initial_l0=2.0)
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
        (["sae.sparsity.target=null"], "sae.sparsity.target=null"),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
        (["+trainer.limit_train_batches=5"], "trainer.limit_train_batches=5"),
        (["sample_sizes.solved=0"], "sample_sizes.solved=0"),
        (["activations.max_norm_ratio=0.1"], "activations.max_norm_ratio=0.1"),
        (["activations.shard_rows=0"], "activations.shard_rows=0"),
        (["activations.window_rows=-1"], "activations.window_rows=-1"),
        (["model.device=cuda"], "model.device=cuda is not here"),
    ],
)
def test_the_command_line_ends_in_the_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    """C6, B1: before the model is even looked for, which is not there."""
    finished = run("train.py", *OPTIONS, *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert said in one_sentence(finished)
