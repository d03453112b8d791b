"""Training data that stand in for harvested activations: subsets of them, and Gaussian vectors without their structure."""

from typing import final

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atomlab.activations.batches.shuffle import ShuffledBatches
from atomlab.activations.store.moments import Moments, exact_moments
from atomlab.groups import Groups


@final
class VectorsDataModule(LightningDataModule):
    """Vectors in memory as training data, so that `build` and a trainer work on them as on harvested activations.

    Args:
        train: (vectors, d_in) float32, the training vectors.
        reference_moments: moments of the corpus that defines the metric S.
        batch_size: vectors of a batch; all vectors where there are fewer.
        steps: steps of the optimiser. Each takes as many batches as the trainer's `accumulate_grad_batches`.
        seed: seed of the order and of `sample`.
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
        """Number of values in a vector."""
        return self.train.shape[1]

    def sample(self, split: str, count: int) -> Tensor:
        """Draws distinct training vectors at random, the same ones for the same seed.

        Args:
            split: any name; the vectors are training vectors whatever it is.
            count: number of vectors; all vectors where there are fewer.

        Returns:
            (min(count, vectors), d_in) float32, in random order.
        """
        return self.train[torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.seed))[:count]]

    def train_dataloader(self) -> DataLoader[Tensor]:
        count = self.steps * (1 if self.trainer is None else self.trainer.accumulate_grad_batches)
        data = Groups.of(self.trainer).data
        batches = ShuffledBatches(
            len(self.train), self.batch_size, count, seed=self.seed, rank=data.rank, world_size=data.size
        )
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
    """Draws vectors from the normal distribution with given moments: the data without any structure beyond these.

    Args:
        moments: mean (d_in,) and uncentred second moment (d_in, d_in) of the data.
        count: number of vectors.
        generator: random numbers, on the CPU.

    Returns:
        (count, d_in) float32.

    Cost: an eigendecomposition, O(d_in³), and 2·count·d_in² FLOPs.
    """
    covariance = moments.second_moment - torch.outer(moments.mean, moments.mean)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    noise = torch.randn(count, len(root), generator=generator)
    return noise @ root.float() + moments.mean.float()
