"""A run that is cut and resumed ends on the same bits, whichever implementations its steps used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from atomlab.sae import InputTransform, TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import DensitySwitch
from atomlab.theory import AtomicInnerProduct
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.module import SAEModule

STEPS = 12


class Stream(IterableDataset[Tensor]):
    """Batches without a length: Lightning does not skip those done before, the caller does."""

    def __init__(self, data: list[Tensor]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.data)


def batches() -> Tensor:
    return torch.randn(STEPS, 128, 16, generator=torch.Generator().manual_seed(1)) / 4


def module(switch: DensitySwitch) -> SAEModule:
    torch.manual_seed(0)
    sae = ThresholdSAE(16, 64)
    calibrate_thresholds_(sae, batches()[0], 8.0)
    metric = AtomicInnerProduct(torch.eye(16, dtype=torch.float64))
    rates = {"learning_rate": 1e-2, "threshold_learning_rate": 1e-2}
    return SAEModule(sae, InputTransform.identity(16), TargetL0(1.0, 4.0), metric, switch=switch, **rates)


def fit(folder: Path, data: list[Tensor], resume: Path | None, **arguments: Any) -> SAEModule:
    found = module(DensitySwitch(0.13, 0.14))  # between the densities at the start and at the end
    saver = ModelCheckpoint(folder, filename="cut", every_n_train_steps=7, save_top_k=-1, enable_version_counter=False)
    options: dict[str, Any] = {"accelerator": "cpu", "max_steps": STEPS, "max_epochs": 1, "logger": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "deterministic": True}
    trainer = Trainer(callbacks=[DecoderNorm(), saver], default_root_dir=folder, **options, **arguments)
    trainer.fit(found, DataLoader(Stream(data), batch_size=None), ckpt_path=resume)
    return found


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and resumed epochs
@pytest.mark.parametrize("clip", [None, 0.1])
def test_resumed_runs_are_the_uncut_run(tmp_path: Path, clip: float | None) -> None:
    data = list(batches())
    whole = fit(tmp_path / "a", data, None, gradient_clip_val=clip)
    cut = torch.load(tmp_path / "a" / "cut.ckpt", weights_only=True)
    assert cut["state_dict"]["switch._extra_state"]["density"] > 0
    resumed = module(DensitySwitch(0.13, 0.14))
    resumed.load_state_dict(cut["state_dict"])
    assert resumed.switch.density == cut["state_dict"]["switch._extra_state"]["density"]
    again = fit(tmp_path / "b", data, None, gradient_clip_val=clip)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    done = int(cut["global_step"])
    continued = fit(tmp_path / "c", data[done:], tmp_path / "a" / "cut.ckpt", gradient_clip_val=clip)
    for name, value in whole.state_dict().items():
        other = continued.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name


@pytest.mark.filterwarnings("ignore")
def test_dead_latents_are_those_that_did_not_fire(tmp_path: Path) -> None:
    data = list(batches())
    found = module(DensitySwitch(2.0, 2.0))
    with torch.no_grad():
        found.sae.threshold[3] = 100.0
    trainer = Trainer(
        accelerator="cpu", max_steps=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, precision="bf16-mixed", gradient_clip_val=1.0,
        accumulate_grad_batches=2,
    )  # fmt: skip
    trainer.fit(found, DataLoader(cast(Any, data), batch_size=None))
    assert found.since_fired[3] == 8 * 128
    assert (found.since_fired[4:] < 8 * 128).any()
