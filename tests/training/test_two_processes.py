"""Two processes that see different data train as one that sees both: the same implementation at every step, the same
dead latents, the same weights."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import Dense, DensitySwitch
from atomlab.training.module import SAEModule
from tests.training.runs import Choices, batches, fit, module
from tests.training.together import free_port, together

STEPS = 12
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and on spawning


def uneven() -> list[Tensor]:
    """Every second vector of a batch, one process's, is small and rarely above a threshold; the others are large."""
    scale = torch.ones(128, 1)
    scale[::2], scale[1::2] = 0.7, 1.5
    return [batch * scale for batch in batches(STEPS)]


def start() -> SAEModule:
    """Latent 3 never fires, latent 4 on the second process's samples only; the limits lie on the run's way."""
    found = module(DensitySwitch(0.11, 0.12), noise=0.0)
    z = uneven()[0] @ found.sae.W_enc[:, 4]
    with torch.no_grad():
        found.sae.threshold[3] = 100.0
        found.sae.threshold[4] = (z[::2].max() + z[1::2].max()) / 2
    assert z[::2].max() < z[1::2].max()
    return found


class Keep(Callback):
    """Writes what this process ended on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        (choices,) = (c for c in trainer.callbacks if isinstance(c, Choices))
        state = {"sparse": choices.sparse, "since_fired": pl_module.since_fired, "sae": pl_module.sae.state_dict()}
        torch.save(state | {"density": pl_module.switch.density}, self.folder / f"{trainer.global_rank}.pt")


def local_density(sae: ThresholdSAE, x: Tensor) -> float:
    return float((Dense().encode(sae, x).z > sae.threshold - sae.bandwidth / 2).float().mean())


def work(rank: int, folder: Path, port: int) -> None:
    os.environ["MASTER_PORT"] = str(port)
    fit(
        start(),
        folder,
        uneven(),
        Keep(folder),
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        enable_checkpointing=False,
    )


def test_two_processes_choose_and_count_together(tmp_path: Path) -> None:
    found, first = start(), uneven()[0]
    assert (
        local_density(found.sae, first[::2]) < 0.11 < local_density(found.sae, first[1::2])
    )  # alone they would differ
    together(work, 2, tmp_path, free_port())
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["sparse"] == two["sparse"]
    assert one["density"] == two["density"]
    assert set(one["sparse"]) == {False, True}  # and they switched, together
    assert torch.equal(one["since_fired"], two["since_fired"])
    assert one["since_fired"][3] == STEPS * 128
    alone = start()
    assert fit(alone, tmp_path, uneven()) == one["sparse"]
    assert torch.equal(alone.since_fired, one["since_fired"])
    for name, value in alone.sae.state_dict().items():
        torch.testing.assert_close(one["sae"][name], value, rtol=1e-3, atol=1e-4)
