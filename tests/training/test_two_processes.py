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
from tests.training.shards import Losses
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


LONG = 200


def vectors(seed: int) -> list[Tensor]:
    return list(torch.randn(LONG, 128, 16, generator=torch.Generator().manual_seed(seed)) / 4)


def losses_of(folder: Path, seed: int, **options: Any) -> list[dict[str, float]]:
    losses = Losses()
    options |= {"max_steps": LONG, "enable_checkpointing": False, "log_every_n_steps": 1}
    fit(module(DensitySwitch(0.11, 0.12), noise=0.1), folder, vectors(seed), losses, **options)
    return losses.logged[LONG // 2 :]


def work_long(rank: int, folder: Path, port: int) -> None:
    os.environ["MASTER_PORT"] = str(port)
    logged = losses_of(folder, 1, devices=2, strategy=DDPStrategy(process_group_backend="gloo"))
    torch.save(logged, folder / f"{rank}.pt")


def test_in_float32_two_processes_train_as_one_up_to_a_tenth_of_what_other_vectors_change(tmp_path: Path) -> None:
    """In float64 they are equal (`test_latent_parallel.py`). In float32 sums in another order move single latents over their
    thresholds, so 200 steps later the weights differ; what is logged must not, by more than a small part of chance."""
    together(work_long, 2, tmp_path, free_port())
    shared, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = [losses_of(tmp_path, seed) for seed in (1, 2, 3, 4, 5)]
    assert shared == other
    for name in ("train/loss", "train/l0"):
        one, *others = (torch.tensor([logged[name] for logged in run]).mean() for run in alone)
        two = torch.tensor([logged[name] for logged in shared]).mean()
        assert abs(two - one) < torch.stack([one, *others]).std() / 10, name
