"""The batch script of docs/how-to/slurm.md, with an `srun` that ends as it is told and a `scontrol` that writes down its call."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT

SCRIPT = re.findall(
    r"^~~~bash\n(#!/bin/bash\n.*?)^~~~", (ROOT / "docs" / "how-to" / "slurm.md").read_text(), re.M | re.S
)[0]


@pytest.mark.parametrize(("code", "requeued"), [(138, True), (143, True), (0, False), (1, False), (2, False)])
def test_a_job_is_requeued_after_a_signal_and_only_then(tmp_path: Path, code: int, requeued: bool) -> None:
    for name, ends in (("srun", code), ("scontrol", 0)):
        (tmp_path / name).write_text(
            f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {name}.said; done\nexit {ends}\n'
        )
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    finished = subprocess.run(["bash", "-c", SCRIPT, "job", "layer=12", "site.name=a b"], cwd=tmp_path, env=env)
    assert finished.returncode == code
    words = ["python", "train.py", "layer=12", "site.name=a b", "hydra.run.dir=runs/17", "resume=auto"]
    assert (tmp_path / "srun.said").read_text().splitlines() == words
    said = tmp_path / "scontrol.said"
    assert (said.read_text().split() if said.exists() else []) == (["requeue", "17"] if requeued else [])
