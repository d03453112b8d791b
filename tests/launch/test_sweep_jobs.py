"""A job of a sweep under any launcher, folder and configuration (faults.md D7, D11, C6)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from atomlab.launch.job_environment import gpu_of_job
from atomlab.launch.sweep_folder import JobStatus, read_status, status_file
from tests.processes import ROOT, environment

NAME = "a=b, 'c' {d}"
SCRIPT = """
import json, os, sys
from atomlab.launch import launch
from hydra.core.hydra_config import HydraConfig

def task(config):
    if HydraConfig.get().job.name == "train" and sys.argv[0] == "worker":
        raise AssertionError("a job runs in a process of its own")
    print(json.dumps([sys.argv, config.extra.width, HydraConfig.get().runtime.output_dir, sorted(os.environ)]))
    return 0.5

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "worker":
        sys.argv = ["worker", *sys.argv[2:]]  # as submitit's and Ray's processes have it
    launch(task, "conf", "train")
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A sweep of two jobs from a process whose sys.argv[0] is no script, with a further configuration folder."""
    work = tmp_path_factory.mktemp("jobs")
    (work / "conf").mkdir()
    claim = {"callbacks": {"folder": {"_target_": "atomlab.launch.ClaimFolder"}}, "job": {"name": "train"}}
    primary = {"defaults": ["_self_", {"extra": "???"}], "width": 1, "hydra": claim}
    OmegaConf.save(OmegaConf.create(primary), work / "conf" / "train.yaml")
    (work / "more" / "extra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"width": "${width}"}), work / "more" / "extra" / "mine.yaml")
    (work / "own.py").write_text(SCRIPT)
    quoted = "'" + NAME.replace("'", "\\'") + "'"
    words = ["worker", "-m", "--config-dir=more", "extra=mine", "width=1,2", f"hydra.sweep.dir={quoted}"]
    kept = environment(work / "cache") | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(work / "own.py"), *words]
    return subprocess.run(command, cwd=work, env=kept, capture_output=True, text=True, check=False), work


def test_each_job_runs_the_tasks_own_script_in_its_own_folder(swept) -> None:
    """D11: under submitit and Ray the command began with the launcher's worker script; D7: '=' in a folder's name broke
    every job, and --config-dir was not handed on."""
    finished, work = swept
    assert finished.returncode == 0, finished.stderr
    jobs = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("[[")]
    assert [job[0][0] for job in jobs] == [str(work / "own.py")] * 2
    assert [job[1] for job in jobs] == [1, 2]
    assert [job[2] for job in jobs] == [str(work / NAME / str(number)) for number in (0, 1)]
    for number in (0, 1):
        assert (work / NAME / str(number) / "objective.txt").read_text() == "0.5"
        wanted = JobStatus(("extra=mine", f"width={number + 1}"), "finished", 0, 0.5)
        assert read_status(status_file(work / NAME, number)) == wanted
        assert (work / NAME / str(number) / ".hydra" / "config.yaml").exists()
    assert sorted(path.name for path in work.iterdir()) == sorted([NAME, "conf", "more", "own.py"])


def test_jobs_see_the_environment_that_the_user_set(swept) -> None:
    """C6: HYDRA_FULL_ERROR leaked into a sweep's jobs."""
    finished, _ = swept
    for line in finished.stdout.splitlines():
        if line.startswith("[["):
            assert "HYDRA_FULL_ERROR" not in json.loads(line)[3]


def test_jobs_that_run_at_once_on_one_machine_get_a_gpu_each_in_turn() -> None:
    assert [gpu_of_job(number, ["4", "6", "7"])["CUDA_VISIBLE_DEVICES"] for number in range(5)] == [
        "4",
        "6",
        "7",
        "4",
        "6",
    ]
    assert gpu_of_job(3, ["0"]) == {} == gpu_of_job(3, [])
