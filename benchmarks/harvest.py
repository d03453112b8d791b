"""Harvest against the bare truncated model on the same batches: `python benchmarks/harvest.py [layers ...]`.

Both run in the same process, in turn, `ROUNDS` times; the figure is the ratio of the best times. A harvest includes
shards, checksums and fsync.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from atomlab.activations.capture import capture
from atomlab.activations.corpus import WikipediaEmbedded
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.embedded import smollm2
from atomlab.activations.harvest import Harvester
from atomlab.activations.origins import read_sequences
from atomlab.activations.plan import batch, plan
from atomlab.activations.tokens import SPLITS

ROUNDS = 2
SITES = {1: ["resid_post"], 3: ["resid_post", "mlp_out", "attn_out"]}


def measure(layers: int, sites: int, tokens: int, cache: str) -> dict[str, float]:
    model, corpus = smollm2(cache), WikipediaEmbedded()
    count = 0
    bare_seconds, harvest_seconds = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            data = ActivationDataModule(
                model, corpus, corpus, site="resid_post", layer=layers - 1, cache_dir=folder, max_tokens=tokens,
                sites=SITES[sites][1:], shard_rows=4096,
            )  # fmt: skip
            harvester_time = _harvest(data)
            harvest_seconds.append(harvester_time)
            sequences = {split: read_sequences(data.folder(corpus), split) for split in SPLITS}
            spans = [
                (s, span)
                for split, s in sequences.items()
                for shard in plan(split, s, 4096, 8192)
                for span in shard.batches
            ]
            loaded, deepest = model.load(layers), data.points[:1]
            batches = [batch(s, *span) for s, span in spans]
            capture(loaded, deepest, batches[0].inputs)
            since = time.perf_counter()
            for made in batches:
                capture(loaded, deepest, made.inputs)
            bare_seconds.append(time.perf_counter() - since)
            count = sum(made.inputs["input_ids"].numel() for made in batches)
    bare, whole = min(bare_seconds), min(harvest_seconds)
    return {
        "layers": layers, "sites": sites, "tokens": count, "bare tokens/s": count / bare, "harvest tokens/s": count /
        whole,
        "ratio": bare / whole,
    }  # fmt: skip


def _harvest(data: ActivationDataModule) -> float:
    """Seconds from the first batch to the last file, without loading the model, which a bare pass needs too."""
    made: list[float] = []

    original = Harvester.on_predict_start, Harvester.on_predict_end

    def start(self: Harvester) -> None:
        original[0](self)
        made.append(time.perf_counter())

    def end(self: Harvester) -> None:
        original[1](self)
        made.append(time.perf_counter())

    Harvester.on_predict_start, Harvester.on_predict_end = start, end  # type: ignore[method-assign]
    try:
        data.harvests.ensure(data.corpus, data.points)
    finally:
        Harvester.on_predict_start, Harvester.on_predict_end = original  # type: ignore[method-assign]
    return made[1] - made[0]


if __name__ == "__main__":
    cache = str(Path("~/.cache/atomlab").expanduser())
    for layers in [int(argument) for argument in sys.argv[1:]] or [6, 16]:
        for sites in SITES:
            sys.stdout.write(json.dumps(measure(layers, sites, 24_000, cache)) + "\n")
            sys.stdout.flush()
