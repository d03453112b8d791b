"""A sweep under every launcher: failed jobs fail alone and are named, and the same command goes on (issue of the sweeps)."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

from atomlab import load_sae
from atomlab.launch.sweep_folder import (
    JobStatus,
    name_of_sweep,
    read_status,
    set_aside,
    status_file,
    statuses,
    wait_for_end,
)
from tests.processes import ROOT, Started, environment, one_sentence, run
from tests.tiny import OPTIONS

SCRIPT = """
import os
from pathlib import Path
from atomlab.launch import launch

def task(config):
    with open("calls", "a") as calls:
        calls.write(f"{config.width}\\n")
    if config.width == 2 and not Path("mended").exists():
        raise ValueError("width=2 should be odd: choose 1 or 3.")
    if config.width == 4 and not Path("mended").exists():
        raise RuntimeError("a fault")
    return config.width / 2

if __name__ == "__main__":
    launch(task, "conf", "train")
"""
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    hydra = {
        "callbacks": {"folder": {"_target_": "atomlab.launch.ClaimFolder"}},
        "job": {"name": "train"},
        "sweep": {"dir": "out/${name_of_sweep:${hydra.overrides.task},${hydra.sweeper.params},${hydra.job.name}}"},
    }
    OmegaConf.save(OmegaConf.create({"width": 1, "other": 0, "hydra": hydra}), tmp_path / "conf" / "train.yaml")
    (tmp_path / "own.py").write_text(SCRIPT)
    return tmp_path


def sweep(place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(place / "own.py"), *words]
    kept = environment(place / "cache") | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=place, env=kept, capture_output=True, text=True, check=False)


def called(place: Path) -> list[int]:
    return sorted(int(line) for line in (place / "calls").read_text().split())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_fails_alone_is_named_and_runs_again_alone(launcher: str, place: Path) -> None:
    """Under joblib and submitit a sweep whose jobs failed ended with 0 and named nothing; a failed job left no trace."""
    words = ["-m", "width=1,2,4", *LAUNCHERS[launcher]]
    finished = sweep(place, *words)
    said = finished.stdout + finished.stderr
    assert finished.returncode == 1, said
    assert "2 of 3 jobs failed" in finished.stderr
    assert "job 1 (width=2): width=2 should be odd: choose 1 or 3." in finished.stderr
    assert "job 2 (width=4): RuntimeError: a fault" in finished.stderr
    (folder,) = (place / "out").iterdir()
    found = statuses(folder)
    assert {number: status.state for number, status in found.items()} == {0: "finished", 1: "failed", 2: "failed"}
    assert [status.objective for status in found.values()] == [0.5, None, None]
    assert [status.exit_code for status in found.values()] == [0, 2, 1]
    assert "a fault" in (folder / "2" / "train.log").read_text()
    assert called(place) == [1, 2, 4]

    (place / "mended").touch()
    again = sweep(place, *words)
    assert again.returncode == 0, again.stderr
    assert called(place) == [1, 2, 2, 4, 4]
    assert [status.objective for status in statuses(folder).values()] == [0.5, 1.0, 2.0]
    assert [path.name for path in (place / "out").iterdir()] == [folder.name]


def test_a_sweep_goes_on_by_its_folder_alone(place: Path) -> None:
    assert sweep(place, "-m", "width=1,2").returncode == 2
    (folder,) = (place / "out").iterdir()
    (place / "mended").touch()
    again = sweep(place, f"resume_sweep={folder}")
    assert again.returncode == 0, again.stderr
    assert called(place) == [1, 2, 2]
    assert [status.objective for status in statuses(folder).values()] == [0.5, 1.0]


def test_optuna_sees_the_objectives_and_finished_jobs_do_not_run_again(place: Path) -> None:
    words = [
        "-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=0", "hydra.sweeper.max_failure_rate=1.0", "width=choice(1,2,3)",
    ]  # fmt: skip
    finished = sweep(place, *words)
    (folder,) = (place / "out").iterdir()
    found = statuses(folder)
    proposed = [int(status.overrides[-1].removeprefix("width=")) for status in found.values()]
    assert len(proposed) == 3
    assert finished.returncode == (2 if 2 in proposed else 0), finished.stderr
    best = OmegaConf.load(folder / "optimization_results.yaml")
    assert best.best_value == max(status.objective for status in found.values() if status.objective is not None)
    before = called(place)
    again = sweep(place, *words)
    assert again.returncode == finished.returncode
    assert called(place) == sorted([*before, *(width for width in proposed if width == 2)])


def test_a_study_in_a_sweep_goes_on_in_its_folder(place: Path) -> None:
    """Not reported: its finished parts were removed with the folder when the sweep was given again."""
    file = place / "conf" / "train.yaml"
    config = OmegaConf.load(file)
    config.hydra.callbacks.folder.goes_on = True
    OmegaConf.save(config, file)
    assert sweep(place, "-m", "width=2,4", "hydra.sweep.dir=out").returncode == 1
    part = place / "out" / "0" / "part"
    part.parent.mkdir(exist_ok=True)
    (part.parent / ".hydra").mkdir(exist_ok=True)
    part.write_text("done")
    OmegaConf.save(OmegaConf.create({"width": 2, "other": 0}), part.parent / ".hydra" / "config.yaml")
    (place / "mended").touch()
    again = sweep(place, "-m", "width=2,4", "hydra.sweep.dir=out")
    assert again.returncode == 0, again.stderr
    assert part.read_text() == "done"
    assert [status.objective for status in statuses(place / "out").values()] == [1.0, 2.0]


def test_an_error_that_all_jobs_share_is_the_users_mistake(place: Path) -> None:
    finished = sweep(place, "-m", "width=2", "other=1,2")
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert "2 of 2 jobs failed" in finished.stderr
    assert "job 1 (other=2): width=2 should be odd" in finished.stderr


def test_a_folder_of_another_configuration_is_refused(place: Path) -> None:
    assert sweep(place, "-m", "width=1,3", "hydra.sweep.dir=same").returncode == 0
    file = place / "conf" / "train.yaml"
    changed = OmegaConf.load(file)
    changed.other = 7
    said = one_sentence(sweep(place, "-m", "width=1,5", "hydra.sweep.dir=same"))
    assert "hydra.sweep.dir=same holds a sweep with the sweep=width=1,3, and now it is width=1,5" in said
    OmegaConf.save(changed, file)
    said = one_sentence(sweep(place, "-m", "width=1,3", "hydra.sweep.dir=same"))
    assert "hydra.sweep.dir=same holds a sweep with other=0, and now it is 7" in said
    assert called(place) == [1, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume_sweep=nowhere"], "resume_sweep=nowhere is no folder of a sweep"),
        (
            ["resume_sweep=nowhere", "width=3"],
            "resume_sweep=nowhere takes the whole command line of that sweep: leave out width=3",
        ),
    ],
)
def test_a_sweep_that_cannot_go_on_says_why(words: list[str], said: str, place: Path) -> None:
    assert said in one_sentence(sweep(place, *words))
    assert not (place / "out").exists()


def test_a_sweep_is_named_by_its_content() -> None:
    words = ["sae.expansion=1,2", "seed=1"]
    name = name_of_sweep(words, None, "train")
    assert name.startswith("sae.expansion=1,2-")
    assert name == name_of_sweep(words[::-1], None, "train")
    others = [
        name_of_sweep([*words, "steps=5"], None, "train"), name_of_sweep(words, {"seed": "1,2"}, "train"),
        name_of_sweep(words, None, "evaluate"), name_of_sweep(["sae.expansion=1,2", "seed=2"], None, "train"),
    ]  # fmt: skip
    assert len({name, *others}) == 5
    long = name_of_sweep(["corpus.path='/a b/c*?:'", "seed=" + ",".join(map(str, range(300)))], None, "train")
    assert len(long) < 80
    assert not set(long) & set("/ *?:'")


def test_a_damaged_status_is_named(tmp_path: Path) -> None:
    file = status_file(tmp_path, 0)
    file.parent.mkdir()
    for text in ("{", "[]", '{"overrides": [], "state": "lost"}', '{"overrides": [], "mine": 1}', "null"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"jobs/0\.json .* remove it, and the job runs again"):
            read_status(file)


def test_what_an_interrupted_job_had_done_is_kept_until_there_is_more(tmp_path: Path) -> None:
    """A job that is interrupted before its first checkpoint, after it, and again before the next one."""
    work = tmp_path / "3"

    def interrupted(step: str | None) -> None:
        work.mkdir()
        (work / "train.log").touch()
        if step is not None:
            (work / "checkpoints").mkdir()
            (work / "checkpoints" / "last.ckpt").write_text(step)

    interrupted(None)
    assert set_aside(work, tmp_path, 3) is None
    assert not work.exists()
    for step, wanted in (("10", "10"), (None, "10"), ("20", "20")):
        interrupted(step)
        checkpoint = set_aside(work, tmp_path, 3)
        assert checkpoint is not None
        assert checkpoint.read_text() == wanted
        assert not work.exists()


def test_a_job_that_still_saves_is_waited_for() -> None:
    """Its sweep was killed a moment ago, and the same command is given at once."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]) as job:
        reaped = threading.Thread(target=job.wait)
        reaped.start()
        wait_for_end(JobStatus((), "running", process=job.pid))
        assert job.poll() == 0
        reaped.join()
    since = time.monotonic()
    wait_for_end(JobStatus((), "running", process=os.getpid()), seconds=0.5)
    assert 0.4 < time.monotonic() - since < 5
    for status in (JobStatus((), "stopped", process=os.getpid()), JobStatus((), "running")):
        wait_for_end(status)
    assert time.monotonic() - since < 10


SWEEP = ["-m", *OPTIONS, "logger=none", "steps=300", "sae.expansion=1,2", "hydra.sweep.dir=out"]
FAST = ["callbacks.last.every=20", "callbacks.progress_bar.refresh_rate=1"]


def test_after_sigkill_the_same_command_ends_as_an_undisturbed_sweep(tiny: Path, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("killed", "whole")]
    for folder in places:
        folder.mkdir()
        for part in ("model", "text.txt"):
            (folder / part).symlink_to(tiny / part)
    whole = run("train.py", *SWEEP, *FAST, cwd=places[1], cache=tiny / "cache")
    assert whole.returncode == 0, whole.stderr
    started = Started("train.py", *SWEEP, *FAST, cwd=places[0], cache=tiny / "cache")
    first, second = (places[0] / "out" / str(job) for job in (0, 1))
    started.wait_for(lambda _: (second / "checkpoints" / "last.ckpt").exists())
    started.send_to_group(signal.SIGKILL)
    started.wait(60)
    killed = {number: status.state for number, status in statuses(places[0] / "out").items()}
    assert killed == {0: "finished", 1: "running"}
    before = (first / "results.json").stat().st_mtime_ns
    again = run("train.py", *SWEEP, *FAST, cwd=places[0], cache=tiny / "cache")
    assert again.returncode == 0, again.stderr
    assert (first / "results.json").stat().st_mtime_ns == before
    for job in ("0", "1"):
        ours, theirs = (folder / "out" / job for folder in places)
        a, b = (load_sae(folder / "sae").state_dict() for folder in (ours, theirs))
        assert all(torch.equal(a[name], b[name]) for name in a)
        rows = [json.loads((folder / "results.json").read_text())["rows"] for folder in (ours, theirs)]
        assert rows[0] == rows[1]
    assert statuses(places[0] / "out") == statuses(places[1] / "out")
    tables = [pq.read_table(folder / "out" / "sweep.parquet") for folder in places]
    assert tables[0].equals(tables[1])
    assert tables[0]["sae.expansion"].to_pylist()[0] == 1.0
    assert (places[0] / "out" / "report.html").exists()
    assert not (places[0] / "out" / "interrupted").exists()


def test_two_sweeps_at_once_do_not_share_a_folder_and_harvest_once(tiny: Path, tmp_path: Path) -> None:
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    words = ["-m", *OPTIONS, "logger=none", "steps=5", "sae.expansion=1,2"]
    started = [
        Started("train.py", *words, f"hydra.sweep.dir={name}", cwd=tmp_path, cache=tmp_path / "cache")
        for name in ("one", "two", "one")
    ]
    ended = [process.wait() for process in started]
    refused = [finished for finished in ended if finished.returncode == 2]
    assert sorted(finished.returncode for finished in ended) == [0, 0, 2], [finished.stderr for finished in ended]
    assert "hydra.sweep.dir=one is in use by another process" in one_sentence(refused[0])
    assert sum(finished.stderr.count("harvest: 100%") > 0 for finished in ended) == 1
    assert len(list((tmp_path / "cache" / "activations").iterdir())) == 1
    both = [statuses(tmp_path / name) for name in ("one", "two")]
    assert both[0] == both[1]
    assert [status.state for status in both[0].values()] == ["finished", "finished"]
