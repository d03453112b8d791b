"""The command line as a user has it: real model, real text, real processes, an empty working folder."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from tests.processes import Started

os.environ["ATOMLAB_CACHE"] = tempfile.mkdtemp(prefix="atomlab-cache-")  # never the user's own
if not torch.cuda.is_available():  # Triton's kernels are interpreted; it asks once, at its first import by any library
    os.environ.setdefault("TRITON_INTERPRET", "1")

SMALL = [
    "layer=1", "steps=30", "batch_size=256", "activations.tokens.context=64", "activations.tokens.max_tokens=12000",
    "sae.expansion=0.5", "shrinkage=1e-3", "sample_sizes.measured=256",
]  # fmt: skip


# Files that take minutes. They come first, so that at the end no worker is left alone with one of them.
LONGEST = [
    "launch/test_sweeps.py", "test_train.py", "launch/test_distributed_sweeps.py", "launch/test_bank.py",
    "docs/test_python_of_the_documents.py", "training/test_planted.py", "evaluation/studies/test_studies.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need one; everything else must pass without."""
    items.sort(key=lambda item: not str(item.path).endswith(tuple(LONGEST)))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs, so that the model is converted and the text harvested once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a text and a cache, in which `tests.tiny.OPTIONS` run; tests leave these as they are."""
    from tests.tiny import workplace  # imports Triton, which must not come before TRITON_INTERPRET is set

    return workplace(tmp_path_factory.mktemp("tiny"))


def run_and_stop(*words: str, cwd: Path, cache: Path, when: str, sign: signal.Signals) -> tuple[int, str]:
    """Starts train.py, sends the signal once its output has shown `when`; the exit code and the output."""
    started = Started("train.py", *words, cwd=cwd, cache=cache)
    started.wait_for(lambda process: when in process.stderr + process.stdout)
    started.send(sign)
    finished = started.wait()
    return finished.returncode, finished.stderr + finished.stdout
