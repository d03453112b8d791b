"""Vectors in memory in place of harvested ones, for the same training code: subsets and Gaussian surrogates."""

from typing import final

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atomlab.activations.batches.shuffle import ShuffledBatches
from atomlab.activations.store.moments import Moments, exact_moments


@final
class VectorsDataModule(LightningDataModule):
    """Training vectors and the moments that training asks for.

    Args:
        train: (vectors, d_in) float32, all of them.
        reference_moments: of the corpus that defines S.
        batch_size: vectors a batch, at most all of them.
        steps: of the run's optimiser, each over the trainer's `accumulate_grad_batches` batches.
        seed: of the order.
    """

    def __init__(
        self,
        train: Float[Tensor, "vectors d_in"],
        reference_moments: Moments,
        *,
        batch_size: int,
        steps: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.reference_moments, self.steps, self.seed = train, reference_moments, steps, seed
        self.batch_size = min(batch_size, len(train))
        self.moments = exact_moments(train)

    @property
    def d_in(self) -> int:
        return self.train.shape[1]

    def sample(self, split: str, count: int) -> Tensor:
        """(min(count, vectors), d_in): distinct random training vectors, the same for the same seed."""
        return self.train[torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.seed))[:count]]

    def train_dataloader(self) -> DataLoader[Tensor]:
        count = self.steps * (1 if self.trainer is None else self.trainer.accumulate_grad_batches)
        batches = ShuffledBatches(len(self.train), self.batch_size, count, seed=self.seed)
        return DataLoader(_Rows(self.train), batch_size=None, sampler=batches)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Never run (`limit_val_batches=0`): Lightning warns of a module that could validate and has nothing to."""
        return DataLoader(_Rows(self.train[:1]), batch_size=None)


class _Rows(Dataset[Tensor]):
    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.vectors[index]


def gaussian_vectors(moments: Moments, count: int, generator: torch.Generator) -> Float[Tensor, "count d_in"]:
    """Float32 draws from the normal distribution with this mean and covariance: the data without its structure."""
    covariance = moments.second_moment - torch.outer(moments.mean, moments.mean)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    noise = torch.randn(count, len(root), generator=generator)
    return noise @ root.float() + moments.mean.float()
