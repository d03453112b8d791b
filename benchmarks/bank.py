"""CPU time and memory of a sweep in one process (`bank=true`) against the same sweep with a process a job.

`python -m benchmarks.bank` runs both. Each is the whole command `python train.py -m`, with a warm cache: imports, training,
closing tables and the sweep's page. CPU time is that of the process and all that it started (user and system), since wall time
depends on what else runs; the peak is that of the largest process. At the end the tables and weights of both are compared.
Words after the options go to both commands.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from atomlab import load_sae

_SCRIPT = Path(__file__).parent.parent / "train.py"


def measured(words: list[str], folder: Path) -> dict[str, float]:
    """Seconds of CPU and peak bytes of a command, with all its children."""
    command = [sys.executable, str(_SCRIPT), "-m", *words, f"hydra.sweep.dir={folder}"]
    with Path(f"{folder}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}: see {folder}.log")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}


def same(one: Path, other: Path) -> bool:
    """Whether the tables and the weights of all jobs are equal, bit for bit."""
    jobs = sorted(path.name for path in one.iterdir() if path.name.isdecimal())
    for job in jobs:
        rows = [
            json.loads((folder / job / "results.json").read_text(encoding="utf-8"))["rows"] for folder in (one, other)
        ]
        a, b = (load_sae(folder / job / "sae").state_dict() for folder in (one, other))
        if rows[0] != rows[1] or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return bool(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expansions", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("words", nargs="*", help="more overrides, such as sample_sizes.measured=256")
    arguments = parser.parse_args()
    words = [f"sae.expansion={arguments.expansions}", f"steps={arguments.steps}", "logger=none", *arguments.words]
    with tempfile.TemporaryDirectory(prefix="atomlab-bank-benchmark-") as name:
        folder = Path(name)
        result: dict[str, Any] = {
            "words": words,
            "bank": measured([*words, "bank=true"], folder / "bank"),
            "separate": measured(words, folder / "separate"),
        }
        result["same_numbers_and_bits"] = same(folder / "bank", folder / "separate")
    result["cpu_ratio"] = result["bank"]["cpu_s"] / result["separate"]["cpu_s"]
    result["peak_ratio"] = result["bank"]["peak_bytes"] / result["separate"]["peak_bytes"]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
