"""A bank trains the jobs of a sweep in one process: the same numbers and bits as separate runs, each with all that a run has."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from wandb.proto import wandb_internal_pb2

from atomlab import load_sae
from atomlab.interop.checkpoint import read_checkpoint
from atomlab.launch.sweep_folder import statuses
from tests.offline_wandb import files_of, records
from tests.processes import Started, one_sentence, run
from tests.tiny import OPTIONS

STEPS = ["steps=60", "callbacks.last.every=20", "callbacks.progress_bar.refresh_rate=1"]
SIZES = ["sample_sizes.measured=128", "sample_sizes.certified=8", "sample_sizes.resampled=50"]
SHARED = [*OPTIONS, *STEPS, *SIZES, "activations.batches.seed=0", "training.incoherence.every=2"]
JOBS = {"0": (1, 0), "1": (1, 1), "2": (2, 0), "3": (2, 1)}  # expansion and seed, in the order of the sweep


def place(tiny: Path, folder: Path) -> Path:
    folder.mkdir()
    for part in ("model", "text.txt"):
        (folder / part).symlink_to(tiny / part)
    return folder


@pytest.fixture(scope="module")
def separate(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = place(tiny, tmp_path_factory.mktemp("separate") / "here")
    for job, (expansion, seed) in JOBS.items():
        own = [f"sae.expansion={expansion}", f"seed={seed}", f"hydra.run.dir=out/{job}"]
        finished = run("train.py", *SHARED, *own, "logger=none", cwd=folder, cache=tiny / "cache")
        assert finished.returncode == 0, finished.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def bank(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped in the middle, given again and killed, and given again."""
    folder = place(tiny, tmp_path_factory.mktemp("bank") / "here")
    own = ["sae.expansion=1,2", "seed=0,1", "bank=true", "logger=wandb", "hydra.sweep.dir=out"]
    words, out = ["-m", *SHARED, *own], folder / "out"
    started = Started("train.py", *words, cwd=folder, cache=tiny / "cache")
    started.wait_for(lambda _: (out / "3" / "checkpoints" / "last.ckpt").exists())
    started.send(signal.SIGTERM)
    ended = started.wait(900)
    assert ended.returncode == 143, ended.stderr
    assert {status.state for status in statuses(out).values()} == {"stopped"}
    started = Started("train.py", *words, cwd=folder, cache=tiny / "cache")
    again = (out / "interrupted" / "3", out / "0" / "checkpoints" / "last.ckpt")
    started.wait_for(lambda _: all(path.exists() for path in again))
    started.send_to_group(signal.SIGKILL)
    started.wait(900)
    finished = Started("train.py", *words, cwd=folder, cache=tiny / "cache").wait(900)
    assert finished.returncode == 0, finished.stderr
    return folder / "out"


def numbers(job: Path) -> list[dict[str, Any]]:
    return json.loads((job / "results.json").read_text())["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("job", ["0", "1", "2", "3"])
def test_a_bank_that_was_stopped_and_killed_has_the_bits_of_separate_runs(job: str, separate: Path, bank: Path) -> None:
    ours, theirs = bank / job, separate / job
    assert numbers(ours) == numbers(theirs)
    a, b = (load_sae(folder / "sae").state_dict() for folder in (ours, theirs))
    assert all(torch.equal(a[name], b[name]) for name in a)
    kept = [read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (ours, theirs)]
    for name, value in kept[1]["state_dict"].items():
        assert torch.equal(kept[0]["state_dict"][name], value) if isinstance(value, torch.Tensor) else True, name
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in kept]
    assert all(torch.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[1])
    assert statuses(bank)[int(job)].objective == float((theirs / "objective.txt").read_text())


@pytest.mark.slow
def test_each_member_is_a_wandb_run_of_its_own(bank: Path) -> None:
    seen = set()
    for job in range(4):
        folder, found = bank / str(job), list[wandb_internal_pb2.Record]()
        for file in files_of(folder):
            found += records(file)
        runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
        assert {own.display_name for own in runs} == {f"out/{job}"}
        assert {own.run_group for own in runs} == {"out"}
        (number,) = {own.run_id for own in runs}
        seen.add(number)
        assert any(record.WhichOneof("record_type") == "exit" for record in found)
        history = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in found
            if record.WhichOneof("record_type") == "history"
        ]
        measured = [line["validation/r2_s"] for line in history if "validation/r2_s" in line]
        assert measured[-1] == pytest.approx(statuses(bank)[job].objective)
    assert len(seen) == 4


@pytest.mark.slow
def test_the_harvest_and_the_process_are_one_and_a_member_that_differs_fails_alone(tiny: Path, tmp_path: Path) -> None:
    folder = place(tiny, tmp_path / "here")
    words = ["-m", *OPTIONS, "steps=5", "logger=none", "bank=true", "batch_size=64,128", "hydra.sweep.dir=out"]
    finished = run("train.py", *words, cwd=folder, cache=tmp_path / "cache")
    assert finished.returncode == 2, finished.stderr
    said = "batch_size is 64 in the first job and 128 in this one: give all jobs the same batch_size, or leave out bank"
    assert f"job 1 (batch_size=128): bank=true trains all jobs on the same batches, and {said}" in finished.stderr
    assert [status.state for status in statuses(folder / "out").values()] == ["finished", "failed"]
    assert finished.stderr.count("harvest:   0%") == 1  # a bar is drawn at its end once or twice, by the clock


def test_a_bank_is_refused_outside_of_a_sweep_and_under_other_launchers(tiny: Path, tmp_path: Path) -> None:
    folder = place(tiny, tmp_path / "here")
    words = [*OPTIONS, "bank=true", "logger=none"]
    said = one_sentence(run("train.py", *words, "hydra.run.dir=one", cwd=folder, cache=tiny / "cache"))
    assert "bank=true trains the jobs of a sweep in one process: add -m" in said
    more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=two", "seed=0,1"]
    finished = run("train.py", "-m", *words, *more, cwd=folder, cache=tiny / "cache")
    assert finished.returncode == 2
    assert "leave out hydra/launcher, or bank" in finished.stderr
