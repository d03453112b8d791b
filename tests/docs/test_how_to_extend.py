"""The metric and the corpus of the how-tos, saved in the files that these name, do what they say in a run of train.py."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.notebooks import ROOT
from tests.processes import environment
from tests.tiny import OPTIONS

HOW_TO = ROOT / "docs" / "how-to"


def block(page: str, kind: str) -> str:
    """The one block of a kind on a page."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", (HOW_TO / page).read_text(encoding="utf-8"), re.M | re.S)
    return found


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    return tmp_path


def train(folder: Path, cache: Path, *words: str) -> str:
    """A process that Python itself starts, since it reads PYTHONPATH at its start; returns what it printed."""
    command = [sys.executable, str(ROOT / "train.py"), *words, "hydra.run.dir=out"]
    env = environment(cache) | {"PYTHONPATH": "."}
    finished = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_metric_of_ones_own_is_logged(folder: Path, tiny: Path) -> None:
    (folder / "my_metrics.py").write_text(block("custom-metric.md", "python"))
    train(folder, tiny / "cache", *OPTIONS, "+callbacks.busiest={_target_: my_metrics.BusiestAtom}")
    (table,) = (folder / "out").rglob("metrics.csv")
    with table.open() as file:
        logged = [float(line["validation/busiest"]) for line in csv.DictReader(file) if line["validation/busiest"]]
    assert logged
    assert all(0 < share <= 1 for share in logged)


def test_a_corpus_of_ones_own_is_harvested_in_its_groups(folder: Path, tmp_path: Path) -> None:
    poems = [
        f"poet {number % 40}\n{text}" for number, text in enumerate((folder / "text.txt").read_text().split("\n\n"))
    ]
    (folder / "poems.txt").write_text("\n\n".join(poems))
    (folder / "my_corpora.py").write_text(block("own-corpus.md", "python"))
    (folder / "conf" / "corpus").mkdir(parents=True)
    (folder / "conf" / "corpus" / "mine.yaml").write_text(block("own-corpus.md", "yaml"))
    words = [word for word in OPTIONS if not word.startswith("corpus") or "@" in word]
    printed = train(folder, tmp_path / "cache", *words, "corpus=mine", "harvest_only=true")
    assert "rows of width 32" in printed
    (groups,) = {file.read_text() for file in (tmp_path / "cache").rglob("groups.json") if "poet" in file.read_text()}
    assert "poet 39" in groups
