"""train.py and other scripts as processes of their own, without the seconds that importing torch costs each of them.

A server process imports the libraries once and forks for every start (Python's forkserver). Each child gets its own
working folder, environment, command line and output files, and runs the script as `__main__`, as a shell would.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
# wandb is left out: it makes a temporary folder when it is imported, which the first child would remove for all of them.
_PRELOADED = ["lightning", "transformers", "datasets", "hydra", "matplotlib.pyplot", "atomlab.evaluation"]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(_PRELOADED)


def environment(cache: Path) -> dict[str, str]:
    """A machine without hub, key or GPU, and with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA", "PYTEST"))}
    return (
        kept
        | {"ATOMLAB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "NETRC": "/dev/null"}
        | {
            "ATOMLAB_PROGRESS": "always"  # tests wait for a step by the bar that shows it
        }
    )


def _become(script: str, words: list[str], cwd: str, env: Mapping[str, str], out: str, err: str) -> None:
    os.setsid()  # a process group of its own, as a shell gives each command
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        # What Python does at its end and multiprocessing leaves out, or does after it has waited for joblib's idle workers.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


class Started:
    """A running script.

    Attributes:
        pid: of the process, which leads a process group of its own.
    """

    def __init__(self, script: str, *words: str, cwd: Path, cache: Path, env: Mapping[str, str] | None = None) -> None:
        path = str(ROOT / script)
        folder = Path(tempfile.mkdtemp(prefix="atomlab-test-"))
        self._out, self._err = folder / "out", folder / "err"
        self._out.touch()
        self._err.touch()
        every = environment(cache) | dict(env or {})
        arguments = (path, list(words), str(cwd), every, str(self._out), str(self._err))
        self._command = [sys.executable, path, *words]
        self._process = _server.Process(target=_become, args=arguments)
        with mock.patch.dict(os.environ, every, clear=True):  # the libraries read some of it when they are imported
            forkserver.ensure_running()
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[["Started"], bool], timeout: float = 120) -> None:
        """Waits until the condition holds, or the process ends, whichever is first."""
        until = time.monotonic() + timeout
        while self._process.is_alive() and not condition(self):
            if time.monotonic() > until:
                raise AssertionError(f"Still waiting after {timeout} s.\n{self.stdout}\n{self.stderr}")
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """To this process alone."""
        os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """To the process and its children, as a terminal's Ctrl-C."""
        os.killpg(self.pid, number)

    def wait(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """The finished process; its exit code is negative if a signal ended it."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"No end after {timeout} s: {self._command}\n{self.stdout}\n{self.stderr}")
        return subprocess.CompletedProcess(self._command, code, self.stdout, self.stderr)


def run(
    script: str, *words: str, cwd: Path, cache: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script of this repository to its end."""
    return Started(script, *words, cwd=cwd, cache=cache, env=env).wait()


def one_sentence(finished: subprocess.CompletedProcess[str]) -> str:
    """What atomlab said of a user's mistake: exit code 2, one sentence, no stack trace."""
    assert finished.returncode == 2, finished.stderr
    said = [line for line in finished.stderr.splitlines() if line.startswith("atomlab: ")]
    assert len(said) == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    return said[0]
