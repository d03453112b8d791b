"""SIGKILL to one of several processes of a run: the others end within seconds, and the same command goes on from there."""

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
    *OPTIONS, "trainer.accelerator=cpu", "logger=none", "callbacks.progress_bar.refresh_rate=1",
    "callbacks.last.every=10", "hydra.run.dir=out", "steps=100",
)  # fmt: skip
TWO = ("trainer=ddp", "trainer.devices=2")
TWO_SHARED = ("trainer=latent_parallel", "trainer.devices=2", "trainer.strategy.latents=2")
THREE = ("trainer=ddp", "trainer.devices=3", "batch_size=126", "trainer.precision=64-true")
GRID = ("trainer=latent_parallel", "trainer.devices=4", "trainer.strategy.latents=2")


def in_folder(folder: Path, tiny: Path) -> Path:
    folder.mkdir()
    for part in ("model", "text.txt"):
        (folder / part).symlink_to(tiny / part)
    return folder


def killed(folder: Path, tiny: Path, words: list[str], step: int, *, rank: int) -> tuple[Started, float]:
    """A run of which one process was killed after the given step, and the seconds until none of its processes was left."""
    in_folder(folder, tiny)
    started = Started("train.py", *words, cwd=folder, cache=tiny / "cache")
    started.wait_for(lambda process: f"| {step}/" in process.stderr + process.stdout)
    ranks = [started.pid, *sorted(children(started.pid))]  # they are started one after the other
    since = time.monotonic()
    os.kill(ranks[rank], signal.SIGKILL)
    started.wait(60)
    while running_in(folder) and time.monotonic() - since < 60:
        time.sleep(0.05)

    return started, time.monotonic() - since


@pytest.mark.parametrize(
    ("trainer", "rank"),
    [(TWO, 1), (TWO_SHARED, 1), (THREE, 2), (GRID, 3)],
    ids=["two", "two that share", "three", "two by two"],
)
def test_the_other_processes_end_in_a_sentence_and_the_run_goes_on_as_if_nothing_had_happened(
    trainer: tuple[str, ...], rank: int, tiny: Path, tmp_path: Path
) -> None:
    """Not reported: without it the end was a stack trace about a connection of gloo."""
    words, folder = [*BASE, *trainer], tmp_path / "run"
    started, seconds = killed(folder, tiny, words, 13, rank=rank)
    assert seconds < 5
    said = one_sentence(started.wait())
    assert f"Another of the {trainer[1].partition('=')[2]} processes of this run has ended" in said
    last = folder / "out" / "checkpoints" / "last.ckpt"
    assert said.endswith(f"Go on with resume={last}.")
    assert read_checkpoint(last)["global_step"] < 100
    for place in (folder, in_folder(tmp_path / "whole", tiny)):
        finished = run("train.py", *words, "resume=auto", cwd=place, cache=tiny / "cache")
        assert finished.returncode == 0, finished.stderr
        assert ("has no checkpoint yet" in finished.stderr) == (place != folder)
    a, b = (load_sae(tmp_path / place / "out" / "sae").state_dict() for place in ("run", "whole"))
    if trainer != THREE:
        assert all(torch.equal(a[name], b[name]) for name in a)
    for (
        name
    ) in a:  # the order in which three numbers are added is another one after a resume: DDP makes its buckets anew
        torch.testing.assert_close(a[name], b[name], rtol=4 * 2**-24, atol=4 * 2**-24)  # saved in float32


@pytest.mark.parametrize(("trainer", "rank"), [(TWO_SHARED, 1), (GRID, 1), (GRID, 2)])
def test_where_there_is_no_checkpoint_yet_it_says_so(
    trainer: tuple[str, ...], rank: int, tiny: Path, tmp_path: Path
) -> None:
    started, seconds = killed(tmp_path / "run", tiny, [*BASE, *trainer], 3, rank=rank)
    assert seconds < 5
    assert one_sentence(started.wait()).endswith("No checkpoint was written yet: start again.")


@pytest.mark.parametrize("trainer", [TWO, GRID], ids=["two", "two by two"])
def test_no_process_outlives_the_first_one(trainer: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    assert killed(tmp_path / "run", tiny, [*BASE, *trainer], 3, rank=0)[1] < 5
