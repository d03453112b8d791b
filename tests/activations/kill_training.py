"""Run by test_killed_training.py: trainings killed at random steps, then one that is not; a fork each."""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file

from atomlab.activations.batches.order import Online, TrainingBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.sae import TargetL0
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.recipe import Architecture, TrainingRecipe

STEPS, KILLS = 60, 5


class Note(Callback):
    """A line for each batch: the step and the digest of its bytes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: torch.Tensor, _: int) -> None:
        with self.file.open("a") as stream:
            stream.write(f"{trainer.global_step} {hashlib.sha256(batch.numpy().tobytes()).hexdigest()}\n")


def child(model: str, text: str, cache: str, folder: Path, online: Online | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    corpus = LocalText(text)
    data = ActivationDataModule(
        LanguageModel(model, dtype="float32", device="cpu"),
        corpus,
        corpus,
        hook_points=HookPoints(site="resid_post", layer=1),
        tokens=TokenRules(context=16),
        harvest=HarvestOptions(cache_dir=cache, batch_tokens=64),
        batches=TrainingBatches(size=32, steps=STEPS, block_rows=16, window_rows=256, online=online),
    )
    data.prepare_data()
    data.setup()
    seed_everything(0, verbose=False)
    module = build(data, Architecture(expansion=2), TrainingRecipe(TargetL0(1.0, 8.0)))
    trainer = Trainer(
        accelerator="cpu", max_steps=STEPS, max_epochs=1, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[DecoderNorm(), Note(folder / "batches"), LastCheckpoint(str(folder), every=1)],
    )  # fmt: skip
    last = folder / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    save_file({name: x.contiguous() for name, x in module.sae.state_dict().items()}, folder / "weights")
    os._exit(0)


def lines(folder: Path) -> list[str]:
    return (folder / "batches").read_text().splitlines() if (folder / "batches").exists() else []


def main(model: str, text: str, cache: str, folder: str, mode: str) -> None:
    online = Online(buffer_rows=96, ahead=2) if mode == "online" else None
    whole, killed = Path(folder) / "whole", Path(folder) / "killed"
    whole.mkdir()
    killed.mkdir()
    assert os.waitpid(child(model, text, cache, whole, online), 0)[1] == 0
    moments, steps = random.Random(0), []
    for _ in range(KILLS):
        goal, pid = len(lines(killed)) + moments.randint(3, 12), child(model, text, cache, killed, online)
        while len(lines(killed)) < goal:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        steps.append(int(lines(killed)[-1].split()[0]))
    assert os.waitpid(child(model, text, cache, killed, online), 0)[1] == 0
    sys.stdout.write(" ".join(map(str, steps)))


if __name__ == "__main__":
    main(*sys.argv[1:])
