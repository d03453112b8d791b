"""Harvest against the bare truncated model on the same batches: `python -m benchmarks.harvest [layers [sites]]`.

A harvest is all of it after loading the model: planning, Lightning's Trainer, hooks, shards, checksums, fsync and the
index. The bare model is its decoder's forward pass without the language-model head. Both run in turn in one process,
bare first and last; the figure is the ratio of the best times, which other work on the machine disturbs least.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from atomlab.activations.corpora.wikipedia import WikipediaEmbedded
from atomlab.activations.harvest.harvester import Harvester, harvest
from atomlab.activations.harvest.shards import plan
from atomlab.activations.model.smollm2 import smollm2
from atomlab.activations.store.row_origins import Layout
from atomlab.activations.tokens.sequences import batch
from atomlab.activations.tokens.tokenise import TokenRules, tokenise

ROUNDS, ROWS, BATCH_TOKENS, SHARD_ROWS = 5, 24_000, 8192, 8192
SITES = {1: ["resid_post"], 3: ["resid_post", "mlp_out", "attn_out"]}


def measure(layers: int, sites: int) -> dict[str, object]:
    model = smollm2("~/.cache/atomlab")
    points = [model.hook_point(site, layers - 1) for site in SITES[sites]]
    loaded = model.load(points)  # both use the same weights
    tokens = tokenise(WikipediaEmbedded(), model.tokenizer, TokenRules(max_tokens=ROWS))
    shards = [shard for split, s in tokens.splits.items() for shard in plan(split, s, SHARD_ROWS, BATCH_TOKENS)]
    inputs = [batch(tokens.splits[shard.split], *span).inputs for shard in shards for span in shard.batches]
    count = sum(made["input_ids"].numel() for made in inputs)
    bare, harvested, size = [_bare(loaded, inputs)], [], 0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            since = time.perf_counter()
            layout = Layout(SHARD_ROWS, BATCH_TOKENS)
            harvest(Harvester(model, points, tokens, Path(folder), dict, layout, loaded), "32-true")
            harvested.append(time.perf_counter() - since)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*-0*.safetensors"))
        bare.append(_bare(loaded, inputs))
    rates = {
        f"{name} tokens/s": [round(count / s) for s in times]
        for name, times in (("bare", bare), ("harvest", harvested))
    }
    ratio = round(min(bare) / min(harvested), 3)
    return {"layers": layers, "sites": sites, "tokens": count, "bytes": size, **rates, "ratio": ratio}


@torch.inference_mode()
def _bare(loaded: nn.Module, inputs: list[dict[str, Tensor]]) -> float:
    since = time.perf_counter()
    for made in inputs:
        loaded.base_model(**made, use_cache=False)  # type: ignore[operator]
    return time.perf_counter() - since


if __name__ == "__main__":
    asked = [int(argument) for argument in sys.argv[1:]]
    for layers in asked[:1] or [6, 16]:
        for sites in asked[1:] or SITES:
            sys.stdout.write(json.dumps(measure(layers, sites)) + "\n")
            sys.stdout.flush()
