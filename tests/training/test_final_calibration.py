"""After the last step the mean L0 of held-out vectors is the target, in what is validated, saved and folded."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything

from atomlab.activations.store.moments import exact_moments
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.sae import L0, Sparsity, TargetL0
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm, FinalCalibration
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Architecture, Calibration, InitialAtoms, TrainingRecipe
from atomlab.training.vectors import VectorsDataModule
from tests.training.runs import QUIET

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice
TARGET = 3.0
X = torch.randn(900, 12, generator=torch.Generator().manual_seed(0))


def trained(
    folder: Path, sparsity: Sparsity, accumulate: int = 1, **calibration: bool
) -> tuple[SAEModule, torch.Tensor]:
    """A training that ends far from its target: the sparsity term is weak, and thresholds start at five latents a vector."""
    data = VectorsDataModule(X, exact_moments(X), batch_size=50, steps=7)
    seed_everything(0, verbose=False)
    recipe = TrainingRecipe(sparsity, Calibration(5.0, 300, **calibration), initial_atoms=InitialAtoms("data"))
    module = build(data, Architecture(3), recipe)
    before = module.sae.threshold.detach().clone()
    trainer = Trainer(
        callbacks=[DecoderNorm(), FinalCalibration(), LastCheckpoint(str(folder), every=5)], default_root_dir=folder,
        max_steps=7, accumulate_grad_batches=accumulate, limit_val_batches=0, enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(module, data)
    assert not torch.equal(module.sae.threshold, before)  # training moves them too
    return module, data.sample("validation", 300)


@torch.no_grad()
@pytest.mark.parametrize("accumulate", [1, 2])
def test_held_out_vectors_have_the_target(tmp_path: Path, accumulate: int) -> None:
    module, vectors = trained(tmp_path, TargetL0(1e-3, TARGET), accumulate)
    fired = (module.sae.encode(module.transform(vectors)) > 0).sum()
    assert int(fired) == round(TARGET * 300)
    folded = (module.folded().encode(vectors) > 0).sum()
    assert abs(int(folded) - round(TARGET * 300)) <= 2  # rounding of the folded weights
    saved, transform = load_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(saved.threshold, module.sae.threshold)
    assert torch.equal(transform.matrix, module.transform.matrix)


def test_a_trainer_that_cannot_sample_is_refused_before_its_first_step(tmp_path: Path) -> None:
    """After its last one the training would be lost."""
    seed_everything(0, verbose=False)
    data = VectorsDataModule(X, exact_moments(X), batch_size=50, steps=7)
    module = build(data, Architecture(3), TrainingRecipe(TargetL0(1e-3, TARGET)))
    trainer = Trainer(
        callbacks=[DecoderNorm(), FinalCalibration()], default_root_dir=tmp_path, max_steps=7, limit_val_batches=0,
        enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"given no data module with `sample`: give one, or use training\.calibration"):
        trainer.fit(module, data.train_dataloader())
    assert trainer.global_step == 0


@torch.no_grad()
@pytest.mark.parametrize(("sparsity", "final"), [(L0(1e-3), True), (TargetL0(1e-3, TARGET), False)])
def test_without_a_target_thresholds_stay_as_trained(tmp_path: Path, sparsity: Sparsity, final: bool) -> None:
    module, vectors = trained(tmp_path, sparsity, final=final)
    fired = float((module.sae.encode(module.transform(vectors)) > 0).sum()) / 300
    assert abs(fired - TARGET) > 0.5
