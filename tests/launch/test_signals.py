"""SIGINT and SIGTERM end every process of a run or a sweep in order (faults.md D7, D10; real processes)."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atomlab.interop.checkpoint import read_checkpoint
from tests.processes import Started, run
from tests.tiny import OPTIONS

LONG = ("steps=100000", "callbacks.progress_bar.refresh_rate=1", "logger=none")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
SWEEP = ("-m", "sae.expansion=1,2", "hydra.sweep.dir=out")
STEP, HARVEST = "| 7/", "harvest:"
SLOW = "activations.harvest.batch_tokens=64"
CASES = {
    "int": ([*LONG], STEP, signal.SIGINT, True),
    "term": ([*LONG], STEP, signal.SIGTERM, False),
    "usr1": ([*LONG], STEP, signal.SIGUSR1, True),
    "harvest": ([SLOW], HARVEST, signal.SIGTERM, False),
    "sweep_int": ([*SWEEP, *LONG], STEP, signal.SIGINT, True),
    "sweep_term": ([*SWEEP, *LONG], STEP, signal.SIGTERM, False),
    "sweep_kill": ([*SWEEP, *LONG], STEP, signal.SIGKILL, False),
    "ddp_int": ([*TWO, *LONG], STEP, signal.SIGINT, True),
    "ddp_term": ([*TWO, *LONG], STEP, signal.SIGTERM, False),
    "ddp_term_all": ([*TWO, *LONG], STEP, signal.SIGTERM, True),
}


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a Slurm job of one task, whose `scontrol` writes down that it was called."""
    (folder / "scontrol").write_text("#!/bin/sh\ntouch requeued\n")
    (folder / "scontrol").chmod(0o755)
    names = {"JOB_ID": "7", "JOB_NAME": "x", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NNODES": "1"}
    return {f"SLURM_{name}": value for name, value in names.items()} | {"PATH": f"{folder}:{os.environ['PATH']}"}


def running_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and process.name != str(os.getpid()):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def ended(tiny: Path, tmp_path_factory: pytest.TempPathFactory):
    """Exit code, output and folder of each case, once none of its processes is left."""
    first = run("train.py", *OPTIONS, "harvest_only=true", cwd=tiny, cache=tiny / "cache")
    assert first.returncode == 0, first.stderr

    def attempt(name: str) -> tuple[int, str, Path]:
        words, when, number, to_group = CASES[name]
        folder = tmp_path_factory.mktemp(name)
        for part in ("model", "text.txt"):
            (folder / part).symlink_to(tiny / part)
        into = [] if words[0] == "-m" else ["hydra.run.dir=out"]
        cache = folder / "cache" if name == "harvest" else tiny / "cache"
        env = slurm(folder) if name == "usr1" else {}
        started = Started("train.py", words[0], *OPTIONS, *words[1:], *into, cwd=folder, cache=cache, env=env)
        started.wait_for(lambda process: when in process.stderr + process.stdout)
        (started.send_to_group if to_group else started.send)(number)
        finished = started.wait(180)
        until = time.monotonic() + 20
        while running_in(folder) and time.monotonic() < until:
            time.sleep(0.1)
        return finished.returncode, finished.stdout + finished.stderr, folder

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(attempt, CASES), strict=True))


def whole_checkpoint(file: Path) -> int:
    """Its step."""
    return read_checkpoint(file)["global_step"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("int", 130), ("term", 143), ("usr1", 138), ("ddp_int", 130), ("ddp_term", 143), ("ddp_term_all", 143)],
)
def test_a_run_finishes_its_step_and_says_how_to_go_on(name: str, code: int, ended) -> None:
    """D10: an interrupt exited with 1; D7: all ranks stop at the same step, whoever got the signal, and none is left."""
    returned, said, folder = ended[name]
    assert returned == code, said
    last = folder / "out" / "checkpoints" / "last.ckpt"
    step = whole_checkpoint(last)
    assert f"atomlab: stopped after step {step}; go on with resume={last}" in said
    assert said.count("atomlab: ") == 1
    assert "Traceback" not in said
    assert running_in(folder) == []


def test_under_slurm_the_run_saves_once_and_leaves_the_requeueing_to_the_script(ended) -> None:
    """Lightning's own handler of SIGUSR1 would save a second checkpoint, `hpc_ckpt_1.ckpt`, requeue and train on."""
    _, _, folder = ended["usr1"]
    assert not (folder / "requeued").exists()
    assert not list(folder.rglob("hpc_ckpt*"))


def test_a_stopped_harvest_leaves_no_folder_and_a_cache_that_goes_on(tiny: Path, ended) -> None:
    returned, said, folder = ended["harvest"]
    assert returned == 143, said
    assert "stopped by SIGTERM before anything was trained" in said
    assert not (folder / "out").exists()
    again = run("train.py", *OPTIONS, SLOW, "harvest_only=true", cwd=folder, cache=folder / "cache")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(("name", "code"), [("sweep_int", 130), ("sweep_term", 143)])
def test_a_sweep_hands_the_signal_to_its_job_and_starts_no_further_one(name: str, code: int, ended) -> None:
    """D7: Ctrl-C killed the job a quarter of a second later, SIGTERM left it running without a parent."""
    returned, said, folder = ended[name]
    assert returned == code, said
    last = folder / "out" / "0" / "checkpoints" / "last.ckpt"
    assert f"stopped after step {whole_checkpoint(last)}; go on with resume={last}" in said
    assert (
        "the sweep was stopped in job 0, and no further job starts; finished in out: jobs none. The same command goes on."
        in said
    )
    assert not (folder / "out" / "1").exists()
    assert running_in(folder) == []


def test_a_job_whose_sweep_was_killed_saves_and_ends(ended) -> None:
    """Not reported: after SIGKILL of the sweep nothing hands a signal on."""
    returned, said, folder = ended["sweep_kill"]
    assert returned == -signal.SIGKILL
    assert running_in(folder) == []
    assert whole_checkpoint(folder / "out" / "0" / "checkpoints" / "last.ckpt") >= 7, said
