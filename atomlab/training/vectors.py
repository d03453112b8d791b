"""Vectors in memory as training data: subsets of activations, surrogates of them, or anybody's own."""

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
        held_out: (vectors, d_in) float32, what `sample` draws from for other splits than `train`; None takes the training
            vectors.
    """

    def __init__(
        self,
        train: Float[Tensor, "vectors d_in"],
        reference_moments: Moments,
        *,
        batch_size: int,
        steps: int,
        seed: int = 0,
        held_out: Float[Tensor, "held_out d_in"] | None = None,
    ) -> None:
        super().__init__()
        self.held_out = train if held_out is None else held_out
        self.train, self.reference_moments, self.steps, self.seed = train, reference_moments, steps, seed
        self.batch_size = min(batch_size, len(train))
        self.moments = exact_moments(train)

    @property
    def d_in(self) -> int:
        """Number of values in a vector."""
        return self.train.shape[1]

    def sample(self, split: str, count: int) -> Tensor:
        """Draws distinct vectors at random, the same ones for the same seed.

        Args:
            split: `train` for training vectors; any other name for those that were held out.
            count: number of vectors; all vectors where there are fewer.

        Returns:
            (min(count, vectors), d_in) float32, in random order.
        """
        vectors = self.train if split == "train" else self.held_out
        return vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(self.seed))[:count]]

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
