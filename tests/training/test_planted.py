"""The training code finds the atoms that made the data.

Four mutually unbiased bases of R^64 are the planted dictionary: 256 atoms with |G_ij| = 1/8 between bases and 0 within.
The four atoms of a sample come from one basis, so their codes do not disturb one another, and no other atom sees more
than 4·1.2/8 = 0.6 < 0.8 = δ_min: a one-step encoder can be exact (theory.md 6). With supports drawn at random from 256
atoms in 64 dimensions it cannot: the other three atoms disturb each value by a variance of 3/64, which alone bounds R²
near 0.95.
"""

import itertools

import lightning
import pytest
import torch
from scipy.linalg import hadamard
from torch.utils.data import DataLoader

from atomlab.sae import Incoherence, InputTransform, TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.theory import AtomicInnerProduct, mean_matched_cosine, mutual_coherence
from atomlab.training.callbacks import DecoderNorm
from atomlab.training.initial_atoms import initial_atoms
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Schedule, TrainingRecipe

DEFAULT = TrainingRecipe(TargetL0(0.3, 4.0), schedule=Schedule(learning_rate=1e-2))
PLAIN = TrainingRecipe(
    TargetL0(0.3, 4.0), noise=0.0, incoherence=Incoherence(0.0), schedule=Schedule(learning_rate=1e-2, freeze=0.2)
)


def unbiased_bases() -> torch.Tensor:
    """The identity, and three Hadamard bases that differ by the signs of bent functions: quadratic forms over GF(2)
    whose alternating matrices, and their sum, are invertible (Calderbank, Cameron, Kantor & Seidel 1997).
    """
    generator = torch.Generator().manual_seed(1)
    points = torch.tensor(list(itertools.product((0, 1), repeat=6)))
    forms = [torch.zeros(6, 6, dtype=torch.int64)]
    while len(forms) < 3:
        form = torch.randint(0, 2, (6, 6), generator=generator).triu(1)
        gaps = [form - other for other in forms]
        if all(round(torch.linalg.det((gap + gap.T).double()).item()) % 2 for gap in gaps):
            forms.append(form)
    signs = [1 - 2 * ((points @ form * points).sum(1) % 2) for form in forms]
    walsh = torch.tensor(hadamard(64)) / 8
    return torch.cat([torch.eye(64), *(walsh * sign for sign in signs)])


def planted(samples: int, dictionary: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Non-negative codes of four atoms of one basis, values in [0.8, 1.2]."""
    first = 64 * torch.randint(0, 4, (samples, 1), generator=generator)
    support = first + torch.rand(samples, 64, generator=generator).argsort(1)[:, :4]
    values = 0.8 + 0.4 * torch.rand(samples, 4, generator=generator)
    return torch.zeros(samples, 256).scatter_(1, support, values) @ dictionary


@pytest.mark.parametrize("recipe", [PLAIN, DEFAULT], ids=["plain", "default"])
def test_planted_atoms_are_found_and_unseen_data_explained(recipe: TrainingRecipe) -> None:
    dictionary, generator = unbiased_bases(), torch.Generator().manual_seed(0)
    assert abs(mutual_coherence(dictionary) - 1 / 8) < 1e-6
    train, test = planted(40_000, dictionary, generator), planted(4000, dictionary, generator)
    second, identity = (train.T @ train / len(train)).double(), torch.eye(64, dtype=torch.float64)
    transform = InputTransform.scaled(torch.zeros(64, dtype=torch.float64), identity, identity, second)
    lightning.seed_everything(0, verbose=False)
    sae = ThresholdSAE(64, 512, bandwidth=0.1, tied=recipe is DEFAULT)  # twice the width: each atom finds a latent
    if recipe is DEFAULT:
        sae.start_from_(initial_atoms(transform(train[:8192]), 512, recipe.initial_atoms, generator))
    calibrate_thresholds_(sae, transform(train[:8192]), 16.0)
    metric = AtomicInnerProduct.from_second_moment(second)
    module = SAEModule(sae, transform, metric, recipe, root_mean_square=1 / 8)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=2500, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, callbacks=[DecoderNorm()],
    )  # fmt: skip
    loader = DataLoader(train, batch_size=512, shuffle=True)
    trainer.fit(module, loader, DataLoader(test, batch_size=512))
    found = module.folded()
    residual = (test - found(test)).square().sum() / (test - test.mean(0)).square().sum()
    assert 1 - residual >= 0.99
    assert mean_matched_cosine(dictionary, found.W_dec.detach()) >= 0.99
