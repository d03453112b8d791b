"""Run by test_harvest.py, one import for all processes: harvests killed at random moments, and two at a time."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import LlamaModel

from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.tokens.tokenise import TokenRules


def child(model: str, text: str, cache: str, note: Path | None = None) -> int:
    """Starts a harvest; `note` is told when it began and ended, and its forward passes of the model."""
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    began, passes = time.monotonic(), []
    register_module_forward_pre_hook(lambda module, _: passes.append(1) if isinstance(module, LlamaModel) else None)
    corpus = LocalText(text)
    data = ActivationDataModule(
        LanguageModel(model, dtype="float32", device="cpu"),
        corpus,
        corpus,
        hook_points=HookPoints(site="resid_post", layer=1, sites=["mlp_out"]),
        tokens=TokenRules(context=16),
        harvest=HarvestOptions(cache_dir=cache, shard_rows=50, batch_tokens=32),
    )
    data.prepare_data()
    if note is not None:
        note.write_text(json.dumps({"began": began, "ended": time.monotonic(), "passes": len(passes)}))
    os._exit(0)


def files(cache: str) -> dict[str, bytes]:
    found = (file for file in sorted(Path(cache).rglob("*")) if file.is_file() and file.name != "lock")
    return {str(file.relative_to(cache)): file.read_bytes() for file in found}


def count(cache: str) -> int:
    return len(list(Path(cache).rglob("[!.]*-0*.safetensors")))


def kill(model: str, text: str, killed: str, whole: str) -> None:
    os.waitpid(child(model, text, whole), 0)
    moments, shards = random.Random(0), []
    for _ in range(10):
        pid, goal = child(model, text, killed), count(killed) + moments.randint(1, 6)
        while count(killed) < goal:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shards.append(count(killed))
    assert os.waitpid(child(model, text, killed), 0)[1] == 0
    assert files(killed) == files(whole)
    sys.stdout.write(
        f"shards after each kill {shards}, at the end {len(list(Path(whole).rglob('*-0*.safetensors')))}\n"
    )


def share(model: str, text: str, cache: str, notes: str) -> None:
    """The second process starts once the first has written a shard."""
    first = child(model, text, cache, Path(notes) / "first.json")
    while not count(cache):
        time.sleep(0.001)
    second = child(model, text, cache, Path(notes) / "second.json")
    assert [os.waitpid(pid, 0)[1] for pid in (first, second)] == [0, 0]


if __name__ == "__main__":
    {"kill": kill, "share": share}[sys.argv[1]](*sys.argv[2:])
