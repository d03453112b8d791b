"""train.py and evaluate.py end to end on SmolLM2 and Wikipedia: complete runs, bit-equal repeats, ranks, sweeps."""

import csv
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from atomlab import load_sae
from atomlab.activations.harvest.shards import plan
from atomlab.activations.store.row_origins import read_sequences
from atomlab.activations.tokens.tokenise import SPLITS
from atomlab.interop.checkpoint import read_checkpoint
from tests.conftest import SMALL, run_and_stop
from tests.processes import run
from tests.tiny import OPTIONS, workplace

WEIGHTS = "sae/sae_weights.safetensors"
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
ONLINE = ("activations=online", "activations.batches.online.buffer_rows=1024", "activations.harvest.batch_tokens=1024")


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others are held against."""
    folder = tmp_path_factory.mktemp("first")
    finished = run("train.py", *SMALL, f"hydra.run.dir={folder}", cwd=folder, cache=cache)
    assert finished.returncode == 0, finished.stderr
    (folder / "stdout.txt").write_text(finished.stdout)
    (folder / "stderr.txt").write_text(finished.stderr)
    return folder


def rows(folder: Path) -> dict[str, dict]:
    return {row["unit"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}


def logged(folder: Path, prefix: str) -> dict[str, float]:
    """The last value of each logged metric of one stage."""
    found: dict[str, float] = {}
    for line in csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines()):
        found |= {name: float(value) for name, value in line.items() if name.startswith(prefix) and value}
    return found


def test_one_command_leaves_a_table_a_report_and_a_published_format(first: Path) -> None:
    printed = (first / "stdout.txt").read_text()
    for unit in ("atoms", "neurons", "random + OMP"):
        assert re.search(rf"^{re.escape(unit)}\s+\S", printed, re.MULTILINE)
    assert str(first / "report.html") in printed
    assert sorted(path.name for path in (first / "checkpoints").iterdir()) == ["last.ckpt"]
    assert list(first.glob("wandb/offline-run-*/*.wandb"))  # no key: offline, and one line says so
    assert "no key found, logging offline" in (first / "stderr.txt").read_text()
    table, sae = rows(first), load_sae(first / "sae")
    assert sae.W_dec.shape == (288, 576)
    assert table["neurons"]["r2"] == 1
    assert table["neurons"]["l0"] == 576
    assert all(0 < table["atoms"][name] < 1 for name in ("r2", "r2_train"))
    assert not list(first.rglob(".writing-*"))


def test_evaluate_gives_the_same_numbers_again(first: Path, cache: Path, tmp_path: Path) -> None:
    """Of a run of several GPUs as well, where there is none: its own trainings (the surrogate) are one process's."""
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    config = OmegaConf.load(moved / ".hydra" / "config.yaml")
    config.trainer.update({"accelerator": "gpu", "devices": 2})
    OmegaConf.save(config, moved / ".hydra" / "config.yaml")
    parts = ["study.certify=false", "study.loss=false", "study.browser=null"]
    words = (f"run={moved}", "sample_sizes.measured=256", "study.controls=[gaussian]", *parts)
    words += (f"hydra.run.dir={tmp_path / 'again'}",)
    finished = run("evaluate.py", *words, cwd=tmp_path, cache=cache)
    assert finished.returncode == 0, finished.stderr
    again = rows(tmp_path / "again")
    assert "Gaussian TSAE + one-step" in again
    for unit in ("atoms", "neurons"):
        for key, value in rows(first)[unit].items():
            if key.startswith("memory"):  # beyond random + OMP, a row that this table does not have
                continue
            same = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert again[unit][key] == same, (unit, key)


def test_a_stopped_and_a_killed_run_goes_on_bit_for_bit(first: Path, cache: Path, tmp_path: Path) -> None:
    """SIGTERM, `resume`, SIGKILL, `resume`: the weights are those of the run that nobody stopped."""
    options = [*SMALL, "logger=none", "callbacks.progress_bar.refresh_rate=1", "callbacks.last.every=2"]
    stopped = [*options, f"hydra.run.dir={tmp_path / 'stopped'}"]
    code, said = run_and_stop(*stopped, cwd=tmp_path, cache=cache, when="| 7/30", sign=signal.SIGTERM)
    assert code == 143
    step = re.search(r"stopped after step (\d+); go on with resume=(\S+)", said)
    assert step, said
    assert 7 <= int(step[1]) < 24
    assert not (tmp_path / "stopped" / "results.json").exists()
    options.append(f"resume={killed(*options, f'resume={step[2]}', folder=tmp_path / 'killed', cache=cache, at=24)}")
    finished = run("train.py", *options, f"hydra.run.dir={tmp_path / 'resumed'}", cwd=tmp_path, cache=cache)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "resumed" / WEIGHTS).read_bytes() == (first / WEIGHTS).read_bytes()


def killed(*words: str, folder: Path, cache: Path, at: int) -> Path:
    """The checkpoint that is left of a run of 30 steps after SIGKILL."""
    code, said = run_and_stop(
        *words, f"hydra.run.dir={folder}", cwd=folder.parent, cache=cache, when=f"| {at}/30", sign=signal.SIGKILL
    )
    assert code == -signal.SIGKILL, said
    assert {path.name for path in folder.glob("checkpoints/[!.]*")} == {"last.ckpt", "previous.ckpt"}
    return folder / "checkpoints" / "last.ckpt"


def test_a_killed_online_run_goes_on_bit_for_bit_and_logs_how_long_it_waited(cache: Path, tmp_path: Path) -> None:
    options = [*SMALL, *ONLINE, "logger=csv", "trainer.log_every_n_steps=10"]
    options += ["callbacks.progress_bar.refresh_rate=1", "callbacks.last.every=2"]
    whole = run("train.py", *options, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path, cache=cache)
    assert whole.returncode == 0, whole.stderr
    assert 0 < logged(tmp_path / "whole", "data/wait")["data/wait"] < 1
    assert rows(tmp_path / "whole")["atoms"]["r2"] > 0
    resume = f"resume={killed(*options, folder=tmp_path / 'killed', cache=cache, at=15)}"
    again = run("train.py", *options, resume, f"hydra.run.dir={tmp_path / 'resumed'}", cwd=tmp_path, cache=cache)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "resumed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_two_online_processes_train_on_vectors_of_their_own(cache: Path, tmp_path: Path) -> None:
    words = [*SMALL, *ONLINE, *TWO, "logger=none", f"hydra.run.dir={tmp_path / 'two'}"]
    finished = run("train.py", *words, cwd=tmp_path, cache=cache)
    assert finished.returncode == 0, finished.stderr
    saved = read_checkpoint(tmp_path / "two" / "checkpoints" / "last.ckpt")
    one, other = ({row.numpy().tobytes() for row in part["buffer"]} for part in saved["ActivationDataModule"]["online"])
    assert min(len(one), len(other)) > 400
    assert len(one & other) < 0.02 * len(one)  # two documents may start with the same two tokens


def test_two_processes_agree_with_one(cache: Path, tmp_path: Path) -> None:
    """In float64: in float32 sums in another order move a few vectors over a threshold, and so the certified shares."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, words in ((one, ()), (two, TWO)):
        options = (*SMALL, "logger=csv", "trainer.precision=64-true", f"hydra.run.dir={folder}")
        finished = run("train.py", *options, *words, cwd=tmp_path, cache=cache)
        assert finished.returncode == 0, finished.stderr
    alone, together = logged(one, "validation/"), logged(two, "validation/")
    assert alone.keys() == together.keys()
    assert not logged(one, "test/")
    for folder, values in ((one, alone), (two, together)):
        assert float((folder / "objective.txt").read_text()) == pytest.approx(values["validation/r2_s"], rel=1e-6)
        # The dashboard and the table measure the same 256 vectors, as sample_sizes.measured says.
        assert rows(folder)["atoms"]["r2_s_validation"] == pytest.approx(values["validation/r2_s"], rel=2e-6)
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-6), name  # the logger rounds to float32


def test_two_widths_cost_one_harvest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """harvest_only runs the model once over the corpus; the jobs of a sweep after it harvest nothing."""
    place, passes = workplace(tmp_path / "place"), tmp_path / "passes"
    cache = place / "cache"
    monkeypatch.setenv("FORWARD_PASSES", str(passes))
    words = [*OPTIONS, "logger=none", "activations.harvest.shard_rows=1000", "activations.harvest.batch_tokens=512"]
    alone = [run("tests/counting.py", *words, "harvest_only=true", cwd=place, cache=cache) for _ in range(2)]
    assert [finished.returncode for finished in alone] == [0, 0], alone[0].stderr
    (folder,) = (cache / "activations").iterdir()
    shards = [shard for split in SPLITS for shard in plan(split, read_sequences(folder, split), 1000, 512)]
    batches = sum(len(shard.batches) for shard in shards)
    assert batches > 10
    assert passes.read_text() == "2\n" * (batches + 4)  # two layers each; four short passes check the site
    assert [finished.stderr.count("harvest:   0%") for finished in alone] == [1, 0]
    assert alone[0].stdout == alone[1].stdout
    assert re.search(r"model\.layers\.1\.output: [\d,]+ rows of width 32\n +norm quantiles", alone[0].stdout)
    sweep = [*words, "sae.expansion=1,2", "steps=10", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    finished = run("train.py", "-m", *sweep, cwd=place, cache=cache)
    assert finished.returncode == 0, finished.stderr
    assert "harvest:" not in finished.stderr
    for job, width in enumerate((32, 64)):
        folder = tmp_path / "sweep" / str(job)
        assert len(load_sae(folder / "sae").W_dec) == width
        for name in ("results.json", "results.csv", "report.html", "objective.txt", "checkpoints/last.ckpt"):
            assert (folder / name).exists(), name
    assert len(list((cache / "activations").iterdir())) == 1
