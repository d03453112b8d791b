"""Shuffled reading of a cache against a plain copy of the same bytes from the page cache, and how well it mixes.

`python benchmarks/reading.py [rows]`: rows of random float32 with documents of 200 neighbouring rows that share a mean.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from atomlab.activations.reading import ActivationStore, Rows
from atomlab.activations.shuffle import ShuffledBatches
from atomlab.activations.store import INDEX, read_tensors, write_json, write_tensors

BATCH, SHARD = 4096, 65_536


def store_of(folder: Path, rows: int, width: int) -> ActivationStore:
    generator, records = torch.Generator().manual_seed(0), {}
    for number, size in enumerate([SHARD] * (rows // SHARD)):
        means = torch.randn(-(-size // 200), width, generator=generator).repeat_interleave(200, 0)[:size]
        x = means + torch.randn(size, width, generator=generator)
        name = f"train-{number:05d}.safetensors"
        records[name] = {"rows": size} | write_tensors(folder / name, {"activations": x, "norms": x.norm(dim=1)})
    write_json(folder / INDEX, {"shards": records})
    return ActivationStore(folder, "train")


def measure(rows: int, width: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        store = store_of(Path(name), rows, width)
        files = sorted(Path(name).glob("*.safetensors"))
        part = Rows(store, torch.arange(len(store)))
        steps = len(store) // BATCH
        best: dict[str, float] = {}
        for _ in range(4):  # the first round fills the page tables
            shards = [read_tensors(file, "activations")["activations"] for file in files]
            since = time.perf_counter()
            for step in range(steps):
                shards[step * BATCH // SHARD][step * BATCH % SHARD : step * BATCH % SHARD + BATCH].clone()
            best["copy"] = min(best.get("copy", 1e9), time.perf_counter() - since)
            since = time.perf_counter()
            for index in ShuffledBatches(len(store), BATCH, steps, window_rows=SHARD):
                part.in_any_order(index)
            best["shuffled"] = min(best.get("shuffled", 1e9), time.perf_counter() - since)
        gigabytes = steps * BATCH * width * 4 / 1e9
        mixing = {
            f"neighbour correlation, {title}": correlation(part, window)
            for title, window in (("full shuffle", rows), ("block shuffle", SHARD))
        }
    return {
        "d_in": width,
        "rows": rows,
        "copy GB/s": gigabytes / best["copy"],
        "shuffled GB/s": gigabytes / best["shuffled"],
        "ratio": best["copy"] / best["shuffled"],
    } | mixing


def correlation(rows: Rows, window: int) -> float:
    """Mean product of neighbours in the order of training, over the mean square: 0 for independent rows."""
    products, squares = 0.0, 0.0
    for index in ShuffledBatches(len(rows), BATCH, 8, window_rows=window):
        x = rows.in_any_order(index).double()
        products += float((x[1:] * x[:-1]).sum())
        squares += float(x[1:].square().sum())
    return products / squares


if __name__ == "__main__":
    for width in (576, 1536):
        sys.stdout.write(json.dumps(measure(int((sys.argv[1:] or ["262144"])[0]), width)) + "\n")
