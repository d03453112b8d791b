"""A sweep's job under submitit gets a scheduler's signal: it saves, Slurm requeues it, and it goes on (issue 16).

Slurm is pretended (`pretended_slurm`); submitit, Hydra's launcher, its worker and the job are real processes. submitit takes
SIGUSR2 unless SUBMITIT_PREEMPT_SIGNAL names another.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atomlab.launch.sweep_folder import statuses
from tests.launch import pretended_slurm
from tests.processes import ROOT, Started, environment, run
from tests.tiny import OPTIONS

SLOW_TO_SAVE = """
import time
from pathlib import Path
from atomlab.launch import launch
from atomlab.launch.signals import Stopped

def task(config):
    if Path("saved").exists():
        return 1.0
    if Path("works").exists():
        return 0.0  # nothing was saved
    try:
        Path("works").touch()
        while True:
            time.sleep(0.1)
    except Stopped:
        time.sleep(2)
        Path("saved").touch()
        raise

if __name__ == "__main__":
    launch(task, "conf", "train")
"""
CONFIGURATION = """
width: 1
hydra:
  callbacks: {folder: {_target_: atomlab.launch.ClaimFolder}}
  job: {name: train}
"""
SWEEP = ("-m", *OPTIONS, "logger=none", "steps=400", "callbacks.last.every=5", "sae.expansion=2", "hydra.sweep.dir=out")
ON_SLURM = "hydra/launcher=submitit_slurm"


def logs(place: Path) -> str:
    """What worker and job printed."""
    return "\n".join(file.read_text() for file in sorted((place / "out" / ".submitit").rglob("*_log.*")))


@pytest.mark.parametrize("name", ["USR1", "USR2"])
def test_the_worker_waits_until_its_job_has_saved(tmp_path: Path, name: str) -> None:
    """Not reported: submitit's worker requeued at once and ended, and with it the step and the job that still saved."""
    cluster = tmp_path / "slurm"
    variables = {"PATH": pretended_slurm.install(cluster), "SUBMITIT_PREEMPT_SIGNAL": name, "PYTHONPATH": str(ROOT)}
    (tmp_path / "own.py").write_text(SLOW_TO_SAVE)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(CONFIGURATION)
    command = [sys.executable, "own.py", "-m", "width=2", "hydra.sweep.dir=out", ON_SLURM]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path) | variables) as sweep:
        while not (tmp_path / "works").exists() and sweep.poll() is None:
            time.sleep(0.1)
        pretended_slurm.send(cluster, getattr(signal, f"SIG{name}"))
        assert sweep.wait(240) == 0, logs(tmp_path)
    pretended_slurm.wait_for_end(cluster)
    assert (tmp_path / "saved").exists()
    assert (cluster / "starts").read_text() == "start\n" * 2
    assert statuses(tmp_path / "out")[0].objective == 1.0
    assert pretended_slurm.processes(cluster) == {}


def test_a_training_goes_on_and_ends_as_an_undisturbed_one(tiny: Path, tmp_path: Path) -> None:
    found = {}
    for kind in ("requeued", "whole"):
        place, cluster = tmp_path / kind, tmp_path / kind / "slurm"
        place.mkdir()
        for part in ("model", "text.txt"):
            (place / part).symlink_to(tiny / part)
        if kind == "whole":
            finished = run("train.py", *SWEEP, cwd=place, cache=tiny / "cache")
            said = finished.stderr
        else:
            variables = {"PATH": pretended_slurm.install(cluster), "SUBMITIT_PREEMPT_SIGNAL": "USR1"}
            started = Started("train.py", *SWEEP, ON_SLURM, cwd=place, cache=tiny / "cache", env=variables)
            last = place / "out" / "0" / "checkpoints" / "last.ckpt"
            started.wait_for(lambda _, last=last: last.exists())
            pretended_slurm.send(cluster, signal.SIGUSR1)
            finished, said = started.wait(), logs(place)
            assert said.count("atomlab: stopped after step") == 1, said
            pretended_slurm.wait_for_end(cluster)
            assert (cluster / "starts").read_text() == "start\n" * 2
        assert finished.returncode == 0, said
        assert statuses(place / "out")[0].state == "finished"
        found[kind] = (place / "out" / "0" / "sae" / "sae_weights.safetensors").read_bytes()
    assert found["requeued"] == found["whole"]
