"""A training that several processes share in every way, and what it ended on, put together to the whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from atomlab.activations.batches.shuffle import ShuffledBatches
from atomlab.activations.store.moments import exact_moments
from atomlab.groups import ALONE, Groups
from atomlab.sae import Incoherence, TargetL0, calibrate_thresholds_
from atomlab.sae.ops import encode_csr
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm, FinalCalibration
from atomlab.training.latent_parallel import LatentParallelStrategy
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Architecture, Calibration, InitialAtoms, Revival, Schedule, TrainingRecipe
from atomlab.training.shard_measurement import whole_codes
from atomlab.training.vectors import VectorsDataModule
from tests.training.runs import QUIET

D_IN, D_SAE, BATCH, STEPS = 12, 37, 48, 40  # 37 latents are uneven over 2, 3 and 4 processes
X = torch.randn(1000, D_IN, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 2, D_IN)
RECIPE = TrainingRecipe(
    TargetL0(1.0, 4.0),
    Calibration(6.0, 200),
    Schedule(learning_rate=0.01, warm_up=0.1, freeze=0.1),
    Revival(200, 0.05),
    InitialAtoms("random"),
    noise=0.1,
    incoherence=Incoherence(0.5, 0.1, 7, 5, 2),
)


class Losses(Callback):
    """What each step logged, in a trainer that logs every step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items() if "train/" in name})


class Data(LightningDataModule):
    """The vectors in float64, from the batch on that a resumed run stands at; some of them may be NaN."""

    def __init__(self, steps: int, broken: Sequence[int] = ()) -> None:
        super().__init__()
        self.steps, self.vectors = steps, X.double()
        self.vectors[list(broken)] = torch.nan

    def sample(self, split: str, count: int) -> Tensor:
        return self.vectors[-count:]

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        start, data = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready, Groups.of(self.trainer).data
        order = ShuffledBatches(len(X), BATCH, self.steps, start=start, rank=data.rank, world_size=data.size)
        return _Rows(self.vectors, order)

    def val_dataloader(self) -> Any:
        return DataLoader([self.vectors[:50]], batch_size=None)  # type: ignore[arg-type]


class _Rows:
    def __init__(self, vectors: Tensor, order: ShuffledBatches) -> None:
        self.vectors, self.order = vectors, order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Any:
        return (self.vectors[rows] for rows in self.order)


def module(groups: Groups, recipe: TrainingRecipe = RECIPE, *, tied: bool = True, d_sae: int = D_SAE) -> SAEModule:
    """In float64, with this process's rows of the weights that one process alone has."""
    made, vectors = [], VectorsDataModule(X, exact_moments(X), batch_size=BATCH, steps=1)
    for who in (ALONE, groups):
        torch.manual_seed(3)
        made.append(build(vectors, Architecture(d_sae / D_IN, bandwidth=0.05, tied=tied), recipe, groups=who).double())
    whole, own = made
    calibrate_thresholds_(whole.sae, whole.transform(X.double()[:200]), recipe.initial_l0)
    shard, parts = own.sae.shard, {}
    for name, value in whole.sae.state_dict().items():
        parts[name] = value if name == "b_dec" else shard.own(value.T).T if name == "W_enc" else shard.own(value)
    assert torch.equal(own.sae.W_dec, parts["W_dec"])  # the rows of one draw
    own.sae.load_state_dict(parts)
    return own


def strategy(latents: int | None) -> Any:
    """None: plain data parallelism."""
    if latents is None:
        return DDPStrategy(process_group_backend="gloo", broadcast_buffers=False)
    return LatentParallelStrategy(latents)


def fit(
    found: SAEModule,
    folder: Path,
    steps: int,
    *callbacks: Callback,
    resume: Path | None = None,
    broken: Sequence[int] = (),
    **options: Any,
) -> Trainer:
    trainer = Trainer(
        callbacks=[DecoderNorm(), FinalCalibration(), *callbacks], default_root_dir=folder, max_steps=steps,
        precision="64-true", enable_checkpointing=False, use_distributed_sampler=False,
        log_every_n_steps=1, **QUIET | {"limit_val_batches": 0} | options,
    )  # fmt: skip
    trainer.fit(found, Data(steps, broken), ckpt_path=resume, weights_only=True)
    return trainer


@torch.no_grad()
def whole(found: SAEModule, losses: Losses | None = None) -> dict[str, Any]:
    """Weights, dead counts, gradients and codes of all latents, put together from all processes; and what was logged."""
    latents, state = found.groups.latents, dict(found.sae.state_dict())
    state |= {f"gradient of {name}": p.grad for name, p in found.sae.named_parameters() if p.grad is not None}
    for name, value in state.items():
        if not name.endswith("b_dec"):
            columns = name.endswith("W_enc")
            parts = torch.cat(latents.gather((value.T if columns else value).contiguous()))
            state[name] = parts.T.contiguous() if columns else parts
    state["since_fired"] = torch.cat(latents.gather(found.since_fired))
    codes = encode_csr(found.sae, found.transform(X.double()[:100]))
    state["codes"] = whole_codes(codes, found.sae.shard).to_dense()
    return state | {"logged": [] if losses is None else losses.logged}
