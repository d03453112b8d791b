"""The tutorial and every block of Python in the documents run as they are printed, on a run of the embedded model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.notebooks import ROOT, code_cells, executed

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
BLOCKS = [
    pytest.param(block, id=f"{file.name}-{number}")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.M | re.S))
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, executed(TUTORIAL, folder, cache)


def test_the_tutorial_goes_from_a_text_to_certified_atoms_and_to_steering_one(printed: tuple[Path, list[str]]) -> None:
    _, cells = printed
    assert len(cells) == len(code_cells(TUTORIAL))
    table, firings, one_atom, steered, losses = cells[1], cells[2], cells[3], cells[4], cells[5]
    r2 = {line[:16].strip(): float(line.split()[line.split().index("R²") + 1]) for line in table.splitlines()}
    assert r2["atoms"] > r2["random + OMP"]
    assert [re.match(r"'([^']*)'", line)[1] for line in firings.splitlines()][:3] == [" pyramids", " of", " Egypt"]  # type: ignore[index]
    assert re.search(r"^atom \d+$", one_atom, re.MULTILINE)
    own, changed = (line.split(":", 1)[1].strip() for line in steered.splitlines()[:1] + steered.splitlines()[-1:])
    assert own.startswith("Last summer we travelled to")
    assert own != changed
    itself, spliced, _, without = (float(line.split()[-1]) for line in losses.splitlines())
    assert itself < spliced < without


def test_the_outputs_in_the_notebook_are_of_these_cells() -> None:
    for cell in code_cells(TUTORIAL):
        assert cell["execution_count"]
        assert bool(cell["outputs"]) == ("print(" in "".join(cell["source"]))


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_as_printed(block: str, printed: tuple[Path, list[str]], cache: Path) -> None:
    """`outputs/...` is the tutorial's run here: a folder of this very name."""
    folder, _ = printed
    if not (folder / "outputs" / "...").exists():
        (folder / "outputs" / "...").symlink_to("tutorial")
    environment = {**os.environ, "PYTHONPATH": str(folder), "ATOMLAB_CACHE": str(cache)}
    finished = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
