"""SIGTERM to the second process of a run that shares a dictionary ends all of them, and one process alone goes on from there."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from atomlab.interop.checkpoint import read_progress
from tests.launch.test_signals import running_in
from tests.processes import Started, one_sentence, run
from tests.tiny import OPTIONS

SHARED = ("trainer=latent_parallel", "trainer.accelerator=cpu", "logger=none", "callbacks.progress_bar.refresh_rate=1")
TWO = (*SHARED, "trainer.devices=2", "trainer.strategy.latents=2")
ONE = (*SHARED, "trainer.devices=1", "trainer.strategy.latents=1")


def children(pid: int) -> list[int]:
    """Processes that a process started, by /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_all_stop_and_one_goes_on(tiny: Path, tmp_path: Path) -> None:
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    words = [*OPTIONS, *TWO, "steps=100000", "hydra.run.dir=out"]
    started = Started("train.py", *words, cwd=tmp_path, cache=tiny / "cache")
    started.wait_for(lambda process: "| 7/" in process.stderr + process.stdout)
    (second,) = children(started.pid)
    os.kill(second, signal.SIGTERM)
    finished = started.wait(120)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    assert finished.returncode == 128 + signal.SIGTERM, finished.stderr
    assert "Traceback" not in finished.stderr
    deadline = time.monotonic() + 30
    while running_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running_in(tmp_path) == []
    step = read_progress(last)["global_step"]
    assert f"atomlab: stopped after step {step}; go on with resume={last}" in finished.stderr

    again = [*OPTIONS, *ONE, "hydra.run.dir=again", f"resume={last}", f"steps={step + 20}"]
    refused = run("train.py", *again, "sae.expansion=3", cwd=tmp_path, cache=tiny / "cache")
    assert "sae.expansion" in one_sentence(refused)
    alone = run("train.py", *again, cwd=tmp_path, cache=tiny / "cache")
    assert alone.returncode == 0, alone.stderr
    rows = json.loads((tmp_path / "again" / "results.json").read_text())["rows"]
    assert rows[0]["d_sae"] == 64
    assert (tmp_path / "again" / "sae" / "sae_weights.safetensors").is_file()
