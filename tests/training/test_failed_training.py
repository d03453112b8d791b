"""A training that went wrong says so, and one that did not says nothing (faults.md E6)."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atomlab.evaluation.rows.conclusion import conclude
from atomlab.sae import L0, TargetL0
from atomlab.sae.ops import DensitySwitch
from atomlab.training.failed_training import Divergence
from atomlab.training.module import SAEModule
from tests.training.runs import batches, fit, module


def trained(folder: Path, rate: float, data: list[torch.Tensor], coefficient: float | None = None) -> SAEModule:
    found = module(DensitySwitch.of("dense"), TargetL0(1.0, 4.0) if coefficient is None else L0(coefficient))
    found.recipe = replace(found.recipe, schedule=replace(found.recipe.schedule, learning_rate=rate))
    fit(found, folder, data, max_steps=len(data))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rate", [10.0, 1e3])
def test_a_rate_that_is_too_high_is_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float
) -> None:
    """E6: R² of −256,678 and exit code 0 without a word."""
    found = trained(tmp_path, rate, batches(40))
    assert found.divergence.diverged
    assert "atomlab: warning: the training diverged" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("rate", "coefficient", "shift", "steps"),
    [
        (1e-2, None, 0.0, 40),  # a usual run
        (1e-5, None, 0.0, 12),  # one that learns nothing
        (1e-2, 1e3, 0.0, 40),  # all latents go silent: R² falls to 0
        (1e-3, None, 100.0, 12),  # raw vectors with a mean of 400 deviations, too short to learn it
    ],
)
def test_runs_that_did_not_diverge_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float, coefficient: float | None, shift: float, steps: int
) -> None:
    found = trained(tmp_path, rate, [batch + shift for batch in batches(steps)], coefficient)
    assert not found.divergence.diverged
    assert "diverged" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_the_run_at_once(tmp_path: Path) -> None:
    found = module(DensitySwitch.of("dense"))
    with torch.no_grad():
        found.sae.b_dec.fill_(1e30)
    with pytest.raises(ValueError, match=r"^The loss is inf at step 0: lower training.schedule.learning_rate=0.01,"):
        fit(found, tmp_path, batches(3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_not_finite_are_named_as_the_cause(tmp_path: Path, value: float) -> None:
    """The case next to it, which nobody reported: one NaN in a harvested batch."""
    data = batches(4)
    data[2][5, 3] = value
    with pytest.raises(ValueError, match=r"^The batch of step 2 has NaN or infinite activations"):
        fit(module(DensitySwitch.of("dense")), tmp_path, data)


def test_the_rule_by_hand_and_across_a_checkpoint() -> None:
    """First step 1.5 variances; the last tenth (steps 18 and 19 of 20) decides."""
    for errors, diverged in (((3.0, 3.0), True), ((1.0, 2.9), False), ((1.9, 1.9), False), ((0.1, 40.0), True)):
        seen, one = Divergence(), torch.tensor(1.0)
        seen.observe(torch.tensor(1.5), one, 0.0)
        seen.observe(torch.tensor(1e9), one, 0.5)  # a spike in the middle that is over
        assert not seen.diverged
        seen.observe(torch.tensor(errors[0]), one, 0.9)
        resumed = Divergence()
        resumed.set_extra_state(seen.get_extra_state())
        resumed.observe(torch.tensor(errors[1]), one, 0.95)
        assert resumed.diverged == diverged
    improving = Divergence()
    improving.observe(torch.tensor(400.0), torch.tensor(1.0), 0.0)
    improving.observe(torch.tensor(399.0), torch.tensor(1.0), 0.95)
    assert not improving.diverged


@pytest.mark.parametrize(("r2", "said"), [(-256_678.0, True), (-0.5, True), (-1e-6, False), (0.0, False), (0.7, False)])
def test_the_tables_conclusion_begins_with_it(r2: float, said: bool) -> None:
    row = {"unit": "atoms", "d_sae": 8, "l0": 2.0, "certified_level_4": 0.0}
    row |= {f"r2{norm}{split}": r2 for split in ("_train", "") for norm in ("", "_s")}
    assert conclude([row]).startswith("The atoms reconstruct worse than the mean vector") == said
