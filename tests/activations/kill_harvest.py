"""Run by test_harvest.py: harvests killed at random moments, then one that is not; a fork each, one import for all."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.language_model import LanguageModel
from atomlab.activations.local_text import LocalText


def child(model: str, text: str, cache: str) -> int:
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        corpus = LocalText(text)
        data = ActivationDataModule(
            LanguageModel(model, dtype="float32", device="cpu"),
            corpus,
            corpus,
            site="resid_post",
            layer=1,
            cache_dir=cache,
            sites=["mlp_out"],
            context=16,
            shard_rows=50,
            harvest_batch_tokens=32,
        )
        data.prepare_data()
        os._exit(0)
    return pid


def files(cache: str) -> dict[str, bytes]:
    found = (file for file in sorted(Path(cache).rglob("*")) if file.is_file() and file.name != "lock")
    return {str(file.relative_to(cache)): file.read_bytes() for file in found}


def count(cache: str) -> int:
    return len(list(Path(cache).rglob("[!.]*-0*.safetensors")))


def main(model: str, text: str, killed: str, whole: str) -> None:
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


if __name__ == "__main__":
    main(*sys.argv[1:])
