"""Shuffled reading of a cache: `python -m benchmarks.reading [copy] [wait] [mixing]`, all three unless named.

copy: shuffled batches against a plain copy of the same bytes from the page cache. wait: `data/wait` of a training on
SmolLM2's activations. mixing: correlation of neighbours on the same activations, as harvested, in block shuffles and
in a full shuffle.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.batches.shuffle import ShuffledBatches, neighbour_correlation
from atomlab.activations.corpora.wikipedia import WikipediaEmbedded
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.smollm2 import smollm2
from atomlab.activations.store.activation_store import ActivationStore, Rows
from atomlab.activations.store.files import INDEX, read_tensors, write_index, write_tensors
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.training.build import build
from atomlab.training.callbacks import DataWait, DecoderNorm
from atomlab.training.recipe import Architecture

BATCH, SHARD, ROWS, ROUNDS = 4096, 65_536, 262_144, 5
HARVESTED, STEPS, EXPANSION = 40_000, 12, 1
BLOCK, WINDOWS = 64, (1024, 4096, 16_384)
SITES = {"resid_post": 576, "mlp_hidden": 1536}


def copying(folder: Path, width: int) -> dict[str, object]:
    """Best rates of read(2) into one buffer, of a copy out of the mapped file by all threads, both in order, and of
    shuffled reading, in turn; the first round fills the page tables.
    """
    generator, records = torch.Generator().manual_seed(0), {}
    for number in range(ROWS // SHARD):
        x = torch.randn(SHARD, width, generator=generator)
        name = f"train-{number:05d}.safetensors"
        records[name] = {"rows": SHARD} | write_tensors(folder / name, {"activations": x, "norms": x.norm(dim=1)})
    write_index(folder / INDEX, {"shards": records})
    store = ActivationStore(folder, "train")
    rows, steps, buffer = Rows(store, torch.arange(ROWS)), ROWS // BATCH, bytearray(BATCH * width * 4)
    times: dict[str, list[float]] = {"read": [], "copy": [], "shuffled": []}
    for _ in range(ROUNDS):
        since = time.perf_counter()
        for name in records:
            with (folder / name).open("rb", buffering=0) as file:
                for _ in range(SHARD // BATCH):
                    file.readinto(buffer)
        times["read"].append(time.perf_counter() - since)
        shards = [read_tensors(folder / name, "activations")["activations"] for name in records]
        since = time.perf_counter()
        for step in range(steps):
            start = step * BATCH % SHARD
            shards[step * BATCH // SHARD][start : start + BATCH].clone()
        times["copy"].append(time.perf_counter() - since)
        since = time.perf_counter()
        for index in ShuffledBatches(ROWS, BATCH, steps, window_rows=SHARD, rising=True):
            rows[index]
        times["shuffled"].append(time.perf_counter() - since)
    rates = {f"{name} GB/s": round(ROWS * width * 4e-9 / min(found), 2) for name, found in times.items()}
    ratios = {f"shuffled / {name}": round(min(times[name]) / min(times["shuffled"]), 3) for name in ("read", "copy")}
    return {"d_in": width, "rows": ROWS, **rates, **ratios}


def harvested(cache: str, site: str) -> ActivationDataModule:
    corpus = WikipediaEmbedded()
    data = ActivationDataModule(
        smollm2("~/.cache/atomlab"),
        corpus,
        corpus,
        hook_points=HookPoints(site=site, layer=1, sites=list(SITES)),
        tokens=TokenRules(max_tokens=HARVESTED),
        harvest=HarvestOptions(cache_dir=cache),
        batches=TrainingBatches(size=BATCH, steps=STEPS),
    )
    data.prepare_data()
    data.setup()
    return data


def waiting(data: ActivationDataModule) -> dict[str, object]:
    """d_sae = d_in, the smallest step and so the largest share of waiting."""
    module = build(data, Architecture(expansion=EXPANSION))
    trainer = Trainer(
        accelerator="cpu", max_steps=STEPS, max_epochs=1, limit_val_batches=0, callbacks=[DecoderNorm(), DataWait()],
        log_every_n_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    since = time.perf_counter()
    trainer.fit(module, data)
    seconds = (time.perf_counter() - since) / STEPS
    waited = float(trainer.callback_metrics["data/wait"])
    return {"d_in": data.d_in, "batch": BATCH, "seconds a step": round(seconds, 3), "data/wait": round(waited, 5)}


def mixing(data: ActivationDataModule) -> dict[str, object]:
    rows = data.rows["train"]
    count = len(rows) // WINDOWS[-1] * WINDOWS[-1]
    x = rows[torch.arange(count)].double()
    result: dict[str, object] = {"d_in": data.d_in, "rows": count, "as harvested": neighbour_correlation(x)}
    for window in (*WINDOWS, count):
        order = torch.cat(list(ShuffledBatches(count, count, 1, block_rows=BLOCK, window_rows=window)))
        name = "full shuffle" if window == count else f"blocks of {BLOCK} in windows of {window}"
        result[name] = neighbour_correlation(x[order])
    return result


def lines(asked: list[str]) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        for site, width in SITES.items():
            if "copy" in asked:
                with tempfile.TemporaryDirectory() as shards:
                    yield {"copy": copying(Path(shards), width)}
            if {"wait", "mixing"} & set(asked):
                data = harvested(folder, site)
                yield {
                    name: measure(data) for name, measure in (("wait", waiting), ("mixing", mixing)) if name in asked
                }


if __name__ == "__main__":
    for line in lines(sys.argv[1:] or ["copy", "wait", "mixing"]):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
