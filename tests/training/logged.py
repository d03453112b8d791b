"""What a run with logger=csv has logged."""

import csv
from pathlib import Path


def last_values(folder: Path) -> dict[str, float]:
    """The last value of each metric."""
    found: dict[str, float] = {}
    for line in csv.DictReader((folder / "csv" / "metrics.csv").read_text(encoding="utf-8").splitlines()):
        found |= {name: float(value) for name, value in line.items() if value}
    return found
