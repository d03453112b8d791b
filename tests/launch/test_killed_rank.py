"""SIGKILL to one of two processes of a run: the other ends within seconds, and the same command goes on from the checkpoint."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from atomlab import load_sae
from atomlab.interop.checkpoint import read_checkpoint
from tests.launch.test_signal_to_one_rank import children
from tests.launch.test_signals import running_in
from tests.processes import Started, one_sentence, run
from tests.tiny import OPTIONS

BASE = (
    *OPTIONS, "trainer.accelerator=cpu", "trainer.devices=2", "logger=none", "callbacks.progress_bar.refresh_rate=1",
    "callbacks.last.every=10", "hydra.run.dir=out", "steps=100",
)  # fmt: skip


def in_folder(folder: Path, tiny: Path) -> Path:
    folder.mkdir()
    for part in ("model", "text.txt"):
        (folder / part).symlink_to(tiny / part)
    return folder


def killed(folder: Path, tiny: Path, words: list[str], step: int, *, first: bool) -> tuple[Started, float]:
    """A run of which one process was killed after the given step, and the seconds until none of its processes was left."""
    in_folder(folder, tiny)
    started = Started("train.py", *words, cwd=folder, cache=tiny / "cache")
    started.wait_for(lambda process: f"| {step}/" in process.stderr + process.stdout)
    (second,) = children(started.pid)
    since = time.monotonic()
    os.kill(started.pid if first else second, signal.SIGKILL)
    started.wait(60)
    while running_in(folder) and time.monotonic() - since < 60:
        time.sleep(0.05)
    return started, time.monotonic() - since


@pytest.mark.parametrize(
    "trainer", [("ddp",), ("latent_parallel", "trainer.strategy.latents=2")], ids=lambda words: words[0]
)
def test_the_other_process_ends_in_a_sentence_and_the_run_goes_on_as_if_nothing_had_happened(
    trainer: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    """Not reported: without it the end was a stack trace about a connection of gloo."""
    words, folder = [*BASE, f"trainer={trainer[0]}", *trainer[1:]], tmp_path / "run"
    started, seconds = killed(folder, tiny, words, 13, first=False)
    assert seconds < 5
    said = one_sentence(started.wait())
    assert "Another of the 2 processes of this run has ended" in said
    last = folder / "out" / "checkpoints" / "last.ckpt"
    assert said.endswith(f"Go on with resume={last}.")
    assert read_checkpoint(last)["global_step"] < 100
    for place in (folder, in_folder(tmp_path / "whole", tiny)):
        finished = run("train.py", *words, "resume=auto", cwd=place, cache=tiny / "cache")
        assert finished.returncode == 0, finished.stderr
        assert ("has no checkpoint yet" in finished.stderr) == (place != folder)
    a, b = (load_sae(tmp_path / place / "out" / "sae").state_dict() for place in ("run", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_where_there_is_no_checkpoint_yet_it_says_so(tiny: Path, tmp_path: Path) -> None:
    words = [*BASE, "trainer=latent_parallel", "trainer.strategy.latents=2"]
    started, seconds = killed(tmp_path / "run", tiny, words, 3, first=False)
    assert seconds < 5
    assert one_sentence(started.wait()).endswith("No checkpoint was written yet: start again.")


def test_no_process_outlives_the_first_one(tiny: Path, tmp_path: Path) -> None:
    assert killed(tmp_path / "run", tiny, [*BASE, "trainer=ddp"], 3, first=True)[1] < 5
