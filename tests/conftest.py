"""The command line as a user has it: real model, real text, real processes, an empty working folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # Triton's kernels are interpreted; it asks once, at its first import by any library
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).parent.parent
SMALL = [
    "layer=1", "steps=30", "batch_size=256", "activations.context=64", "activations.max_tokens=12000",
    "sae.expansion=0.5", "sae.shrinkage=1e-3", "metrics.samples=256",
]  # fmt: skip
Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need one; everything else must pass without."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def environment(cache: Path) -> dict[str, str]:
    """A machine without hub, key or GPU, and with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA", "PYTEST"))}
    return kept | {"ATOMLAB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "NETRC": "/dev/null"}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs, so that the model is converted and the text harvested once."""
    return tmp_path_factory.mktemp("cache")


def run(script: str, *words: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), *words]
    return subprocess.run(
        command, cwd=cwd, env=environment(cache), capture_output=True, text=True, check=False, timeout=240
    )


def run_and_stop(*words: str, cwd: Path, cache: Path, when: str, sign: signal.Signals) -> tuple[int, str]:
    """Starts train.py, sends the signal once its output has shown `when`; the exit code and the output."""
    command = [sys.executable, str(ROOT / "train.py"), *words]
    with subprocess.Popen(
        command, cwd=cwd, env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        seen, part = b"", b" "
        while when.encode() not in seen and part:
            part = os.read(process.stdout.fileno(), 4096)
            seen += part
        process.send_signal(sign)
        rest = process.stdout.read()
        return process.wait(timeout=120), (seen + rest).decode()
