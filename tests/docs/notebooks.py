"""Executes a notebook as a reader would, cell by cell in one process, without a kernel.

`python -m tests.docs.notebooks docs/tutorial.ipynb` executes it in an empty folder and puts what each cell prints into the
notebook.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.processes import ROOT

_MARK = "--- what the next cell prints ---"


def executed(notebook: Path, folder: Path, cache: Path | None = None) -> list[str]:
    """Runs all code cells in a folder that has train.py, and returns what each prints.

    The cells run as one script, so that a cell that fails fails the script; a line between them parts their outputs.
    """
    for name in ("train.py", "evaluate.py", "conf", "atomlab"):
        (folder / name).symlink_to(ROOT / name)
    script = f"\nprint({_MARK!r}, flush=True)\n".join("".join(cell["source"]) for cell in code_cells(notebook))
    environment = {**os.environ, "PYTHONPATH": str(folder)} | ({} if cache is None else {"ATOMLAB_CACHE": str(cache)})
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [part.strip("\n") for part in finished.stdout.split(f"{_MARK}\n")]


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    found = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in found["cells"] if cell["cell_type"] == "code"]


def write_outputs(notebook: Path) -> None:
    found = json.loads(notebook.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        printed = iter(executed(notebook, Path(folder)))
    for number, cell in enumerate((cell for cell in found["cells"] if cell["cell_type"] == "code"), 1):
        text = next(printed)
        lines = [f"{line}\n" for line in text.splitlines()]
        cell["execution_count"] = number
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if text else []
    notebook.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_outputs(Path(sys.argv[1]))
