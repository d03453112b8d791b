"""`resume=auto` goes on in the folder of the run, from the newest checkpoint that is whole."""

import csv
import shutil
import sys
from pathlib import Path

import pytest

from atomlab.interop.checkpoint import read_checkpoint
from atomlab.launch import ranks
from tests.processes import Started, one_sentence, run
from tests.tiny import OPTIONS

WEIGHTS = "sae/sae_weights.safetensors"
SAME = [
    *OPTIONS,
    "steps=20",
    "callbacks.last.every=8",
    "trainer.log_every_n_steps=1",
    "hydra.run.dir=run",
    "resume=auto",
]


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def steps_logged(folder: Path) -> set[int]:
    lines = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return {int(line["step"]) for line in lines if line["train/loss"]}


def test_the_same_command_goes_on_in_its_folder_from_what_is_whole(tiny: Path, tmp_path: Path) -> None:
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    folder, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    first = run("train.py", *SAME, cwd=tmp_path, cache=tiny / "cache")
    assert first.returncode == 0, first.stderr
    assert "run has no checkpoint yet, so the training starts." in first.stderr
    weights = (folder / WEIGHTS).read_bytes()

    flip(checkpoints / "last.ckpt", -7)
    (folder / WEIGHTS).unlink()
    again = run("train.py", *SAME, cwd=tmp_path, cache=tiny / "cache")
    assert again.returncode == 0, again.stderr
    assert "last.ckpt is left out: it is no readable checkpoint (it is damaged" in again.stderr
    assert "previous.ckpt is used in its place; it goes on after step 16." in again.stderr
    assert "the training goes on after 16 of 20 steps, from " in again.stderr
    assert (folder / WEIGHTS).read_bytes() == weights
    assert steps_logged(folder / "csv-1") == set(range(20))  # nothing that was logged is lost
    assert steps_logged(folder / "csv") == set(range(16, 20))

    other = run("train.py", *SAME, "sae.expansion=3", cwd=tmp_path, cache=tiny / "cache")
    assert "holds a run with sae.expansion=2, and now it is 3" in one_sentence(other)
    for file in checkpoints.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:999])
    none = run("train.py", *SAME, cwd=tmp_path, cache=tiny / "cache")
    assert "and none beside it is: start a new run in another folder." in one_sentence(none)
    assert (folder / WEIGHTS).read_bytes() == weights
    unnamed = run("train.py", *OPTIONS, "resume=auto", cwd=tmp_path, cache=tiny / "cache")
    assert "resume=auto looks for checkpoints in the folder of the run" in one_sentence(unnamed)


def test_a_cache_deleted_under_a_run_costs_no_training(tiny: Path, tmp_path: Path) -> None:
    """The training goes on with the files that it has open; what the closing table lacks is made again."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    cache, words = tmp_path / "cache", [*SAME, "steps=200", "logger=none", "callbacks.progress_bar.refresh_rate=1"]
    started = Started("train.py", *words, cwd=tmp_path, cache=cache)
    started.wait_for(lambda process: "| 7/" in process.stderr + process.stdout)
    shutil.rmtree(cache / "activations")
    finished = started.wait()
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("atomlab: Damaged in the cache (")
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 200
    weights = (tmp_path / "run" / WEIGHTS).read_bytes()
    again = run("train.py", *words, cwd=tmp_path, cache=cache)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == weights
    assert (tmp_path / "run" / "results.json").exists()


def test_a_further_process_looks_for_checkpoints_in_the_folder_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own folder is a temporary one; under srun nobody tells it the first one's."""
    monkeypatch.setattr(ranks, "end_with_parent", lambda grace: None)
    monkeypatch.setattr(sys, "argv", ["train.py", "resume=auto", "hydra.run.dir='runs/${oc.env:SLURM_JOB_ID}'"])
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("ATOMLAB_FIRST_FOLDER", "another")  # of the run before, as Lightning's children inherit it
    assert ranks.folder_of_first_process(Path("own")) == Path("own")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with ranks.folder_of_further_process():
        assert ranks.folder_of_first_process(Path("own")) == Path("runs/17")
