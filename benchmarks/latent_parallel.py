"""python -m benchmarks.latent_parallel [--processes 1 2 4]: memory and exchange of processes that share a dictionary.

Each number of processes trains three steps on Gaussian vectors with gloo, one process a rank on this machine. Printed for each
rank: the bytes of its weights, gradients and Adam's means; by how much its resident memory grew at most from before the
TSAE was made to the end (tiles, entries, libraries' buffers and one batch are in it); and the bytes that it hands to
collectives in the last step. Linux only. Times are left out: the processes of one machine share its cores.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from atomlab.activations.store.moments import exact_moments
from atomlab.groups import Groups
from atomlab.sae import Incoherence, TargetL0
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.latent_parallel import LatentParallelStrategy
from atomlab.training.recipe import Architecture, Calibration, InitialAtoms, TrainingRecipe
from atomlab.training.vectors import VectorsDataModule

STEPS, BATCH, L0 = 3, 64, 40.0


class Exchanged(Callback):
    """Counts the bytes of the last step's collectives."""

    def __init__(self) -> None:
        self.bytes, self.counts = 0, False
        for name in ("all_reduce", "all_gather"):
            setattr(dist, name, self._counted(getattr(dist, name), name == "all_gather"))

    def _counted(self, collective: Any, second: bool) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            self.bytes += words[1 if second else 0].nbytes * self.counts
            return collective(*words, **named)

        return call

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.counts = batch_idx == STEPS - 1

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.counts = False


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rank(count: int, d_in: int, d_sae: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = VectorsDataModule(
        torch.randn(2048, d_in), exact_moments(torch.randn(2048, d_in)), batch_size=BATCH, steps=STEPS
    )
    before, groups = resident(), Groups.of_ranks(int(os.environ["LOCAL_RANK"]), count, count)
    recipe = TrainingRecipe(
        TargetL0(1.0, L0),
        Calibration(samples=256, final=False),
        initial_atoms=InitialAtoms("random"),
        incoherence=Incoherence(0.0),
        implementation="sparse",
    )
    module, exchanged = build(data, Architecture(d_sae / d_in), recipe, shrinkage=0.0, groups=groups), Exchanged()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(
        accelerator="cpu", devices=count, strategy=LatentParallelStrategy(count), max_steps=STEPS, limit_val_batches=0,
        use_distributed_sampler=False, callbacks=[DecoderNorm(), exchanged], **quiet,
    )  # fmt: skip
    trainer.fit(module, data)
    state = list(module.sae.parameters()) + [p.grad for p in module.sae.parameters() if p.grad is not None]
    state += [value for of in trainer.optimizers[0].state.values() for value in of.values()]
    found = {
        "processes": count, "rank": trainer.global_rank, "latents": len(module.sae.W_dec),
        "state_mb": sum(value.nbytes for value in state) / 1e6,
        "grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6,
        "exchanged_bytes": exchanged.bytes,
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--d-in", type=int, default=256)
    parser.add_argument("--d-sae", type=int, default=65_536)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    if "LOCAL_RANK" in os.environ:
        warnings.filterwarnings("ignore")
        rank(options.processes[0], options.d_in, options.d_sae)
        return
    for count in options.processes:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "benchmarks.latent_parallel", "--d-in", str(options.d_in)]
        words += ["--d-sae", str(options.d_sae), "--processes", str(count)]
        shared = os.environ | {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [subprocess.Popen(words, env=shared | {"LOCAL_RANK": str(number)}) for number in range(count)]
        codes = [one.wait() for one in ranks]
        if any(codes):
            sys.exit(1)


if __name__ == "__main__":
    main()
