"""A callback that writes down what each process of a run trains with; tests name it on the command line."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Probe(Callback):
    """Writes `<d_sae>-<rank>.json` into a folder when the training starts."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        found = {
            "world_size": trainer.world_size,
            "recipe": repr(module.recipe),
            "d_sae": module.sae.d_sae,
            "steps": trainer.max_steps,
            "rates": [group["lr"] for group in trainer.optimizers[0].param_groups],
            "noise_seed": int(module.noise_seed),
            "weights": float(module.sae.W_dec.double().square().mean(1).mul(module.sae.threshold.double()).sum()),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{module.sae.d_sae}-{trainer.global_rank}.json").write_text(json.dumps(found), encoding="utf-8")
