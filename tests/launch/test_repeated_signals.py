"""Signals that come together count once, and the same one again ends a process at once (real processes)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT, environment

LISTENS = {
    "before a training": """
from atomlab.launch.signals import Stopped, ended_by_signals
with ended_by_signals():
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.05)
    except Stopped:
        time.sleep(LONG)  # one operation, as Python sees it
        print("in order", flush=True)
""",
    "in a training": """
from atomlab.training.stop_signals import StopSignals
signals = StopSignals()
signals.enter(signals)
signals.listen()
print("ready", flush=True)
while not signals.asked:
    time.sleep(0.05)
time.sleep(LONG)
print("in order", flush=True)
""",
}


def started(where: str, seconds: float, cache: Path) -> "subprocess.Popen[str]":
    code = f"import time\nLONG = {seconds}\n{LISTENS[where]}"
    variables = environment(cache) | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("where", LISTENS)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGUSR1], ids=["another", "the same"])
def test_two_at_once_end_it_in_order(where: str, second: signal.Signals, tmp_path: Path) -> None:
    """Not reported: a job got Slurm's signal and its sweep's. Python saw the later one after a long operation, and it ended."""
    for pause in (0.0, 0.01, 0.1):
        with started(where, 1.5, tmp_path) as process:
            os.kill(process.pid, signal.SIGUSR1)
            time.sleep(pause)
            os.kill(process.pid, second)
            assert process.communicate(timeout=60)[0] == "in order\n"
        assert process.returncode == 0


@pytest.mark.parametrize("where", LISTENS)
def test_the_same_one_again_ends_it_at_once(where: str, tmp_path: Path) -> None:
    with started(where, 60, tmp_path) as process:
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == -signal.SIGTERM
