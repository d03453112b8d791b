"""A small training run in Lightning's Trainer, and a record of what it chose."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from atomlab.sae import InputTransform, Sparsity, TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import DensitySwitch
from atomlab.theory import AtomicInnerProduct
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.checkpoint_io import CheckpointFiles
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Calibration, Revival, Schedule, TrainingRecipe

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_progress_bar": False,
    "enable_model_summary": False, "deterministic": True, "plugins": CheckpointFiles(),
}  # fmt: skip


class Stream(IterableDataset[Tensor]):
    """Batches without a length: Lightning does not skip those done before, the caller does. Of several processes each
    takes its own rows."""

    def __init__(self, data: list[Tensor]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        together = dist.is_initialized()
        rank, size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        return (batch[rank::size] for batch in self.data)


class Choices(Callback):
    """Which implementation each step used."""

    def __init__(self) -> None:
        self.sparse: list[bool] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Tensor, batch_idx: int) -> None:
        pl_module.switch.choose(pl_module.sae, batch)  # decides on the first batch; afterwards it changes nothing
        self.sparse.append(pl_module.switch.is_sparse)


def batches(steps: int) -> list[Tensor]:
    return list(torch.randn(steps, 128, 16, generator=torch.Generator().manual_seed(1)) / 4)


def module(switch: DensitySwitch, sparsity: Sparsity | None = None, *, noise: float = 0.1) -> SAEModule:
    torch.manual_seed(0)
    sae = ThresholdSAE(16, 64)
    calibrate_thresholds_(sae, batches(1)[0], 8.0)
    metric = AtomicInnerProduct(torch.eye(16, dtype=torch.float64))
    aim = TargetL0(1.0, 4.0) if sparsity is None else sparsity
    recipe = TrainingRecipe(
        aim, Calibration(l0=8.0), Schedule(learning_rate=1e-2, freeze=0.2), Revival(after=200), noise=noise
    )
    return SAEModule(sae, InputTransform.identity(16), metric, recipe, switch)


def fit(
    found: SAEModule, folder: Path, data: list[Tensor], *callbacks: Callback, resume: Path | None = None, **options: Any
) -> list[bool]:
    """Trains, and says which steps were sparse."""
    choices = Choices()
    trainer = Trainer(
        callbacks=[DecoderNorm(), choices, *callbacks], default_root_dir=folder, use_distributed_sampler=False,
        **QUIET | {"max_steps": 12, "enable_checkpointing": bool(callbacks)} | options,
    )  # fmt: skip
    trainer.fit(found, DataLoader(Stream(data), batch_size=None), ckpt_path=resume)
    return choices.sparse


def assert_same(a: SAEModule, b: SAEModule) -> None:
    """Bit for bit."""
    for name, value in a.state_dict().items():
        other = b.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name
