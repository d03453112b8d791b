"""Cached activations as batches for Lightning: one long stream of global batches that depends on the seed and the step only."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, final

import torch
from filelock import FileLock
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from atomlab.activations.corpus import Corpus
from atomlab.activations.harvest import harvest
from atomlab.activations.language_model import LanguageModel
from atomlab.activations.moments import Moments, median_norm, moments, norm_filter
from atomlab.activations.origins import write_sequences
from atomlab.activations.reading import ActivationStore, Rows
from atomlab.activations.sites import HookPoint, resolve_site
from atomlab.activations.store import INDEX, store_key
from atomlab.activations.tokens import SPLITS, tokenise


@final
class ShuffledBatches(Sampler[Tensor]):
    """Row numbers of each training step: global batches without replacement within an epoch, dealt out to the ranks.

    Batch s consists of the same rows on any number of ranks, and depends on `seed` and s only, so a run resumed at step s goes on exactly.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"activations.batch_size={batch_size} is the global batch and should be a multiple of the {world_size} processes."
            )
        if rows < batch_size:
            raise ValueError(
                f"activations.batch_size={batch_size} is more than the {rows} training vectors: lower it or harvest more tokens."
            )
        self.rows, self.batch_size, self.steps, self.start, self.seed = rows, batch_size, steps, start, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps  # the whole run, also when resumed: Lightning counts the steps done before as fetched

    def __iter__(self) -> Iterator[Tensor]:
        per_epoch = self.rows // self.batch_size
        epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = torch.randperm(
                    self.rows, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                )
            first = step % per_epoch * self.batch_size
            yield order[first + self.rank : first + self.batch_size : self.world_size]


@final
class OrderedBatches(Sampler[Tensor]):
    """Every row once over all ranks, in order; ranks may get one row more or less than others."""

    def __init__(self, rows: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.batches = torch.arange(rank, rows, world_size).split(max(1, batch_size // world_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


@final
class ActivationDataModule(LightningDataModule):
    """Activations of a language model at one site, harvested once per corpus and cached.

    Args:
        model: the language model.
        corpus: whose activations are trained and tested on.
        reference: whose second moment defines the atomic inner product.
        site: a short name or a hook point's path (sites.py).
        layer: counted from 0.
        sites, layers: harvested in the same pass: every one of these sites and the own at every one of these layers and the own (`at`).
        cache_dir: where harvests are kept.
        context: tokens a sequence.
        max_tokens: vectors harvested over all splits (None: all).
        fractions: of them for train, validation and test.
        batch_size: vectors a training step, over all processes.
        steps: of the run.
        drop_first: leave out position 0 (attention sink).
        drop_special: leave out special tokens.
        separate_documents: packed documents do not see one another, in models that can do this; there `drop_first` means of each document.
        max_norm_ratio: leave out vectors whose norm is above this many times the median (None: keep all).
        shard_rows, harvest_batch_tokens: size of a file and of a forward pass.
        seed: of split, sample and order.

    Raises:
        ValueError, FileNotFoundError, OSError: one sentence each, from the part that is at fault.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        reference: Corpus,
        *,
        site: str,
        layer: int,
        cache_dir: str,
        sites: Sequence[str] = (),
        layers: Sequence[int] = (),
        context: int = 256,
        max_tokens: int | None = None,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        batch_size: int = 512,
        steps: int = 1000,
        drop_first: bool = True,
        drop_special: bool = True,
        separate_documents: bool = True,
        max_norm_ratio: float | None = 10.0,
        shard_rows: int = 65_536,
        harvest_batch_tokens: int = 8192,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.corpus, self.reference = model, corpus, reference
        self.site, self.layer, self.cache_dir = site, layer, Path(cache_dir).expanduser()
        self.sites, self.layers = list(dict.fromkeys([site, *sites])), list(dict.fromkeys([layer, *layers]))
        self.batch_size, self.steps, self.seed, self.max_norm_ratio = batch_size, steps, seed, max_norm_ratio
        self._tokens = {"context": context, "fractions": list(fractions), "max_rows": max_tokens, "seed": seed}
        self._tokens |= {"drop_first": drop_first, "drop_special": drop_special}
        self.separate_documents = separate_documents
        self._harvest = {"shard_rows": shard_rows, "batch_tokens": harvest_batch_tokens}
        self.rows: dict[str, Rows] = {}

    @property
    def point(self) -> HookPoint:
        return self._point(self.site, self.layer)

    @property
    def points(self) -> list[HookPoint]:
        """All that one pass harvests: the own hook point first."""
        others = (self._point(site, layer) for site in self.sites for layer in self.layers)
        return list(dict.fromkeys([self.point, *others]))

    def _point(self, site: str, layer: int) -> HookPoint:
        return resolve_site(site, layer, self.model.kind, self.model.num_layers, self.model.title)

    def at(self, site: str, layer: int) -> "ActivationDataModule":
        """The same data at another hook point, cheap to get; harvest it first (`sites`, `layers`) to pay for one pass only."""
        other = copy(self)
        other.site, other.layer, other.rows, other.trainer = site, layer, {}, None
        return other

    @property
    def _tokenising(self) -> dict[str, Any]:
        return self._tokens | {"apart": self.separate_documents and self.model.separates_documents}

    def folder(self, corpus: Corpus) -> Path:
        description = {"model": self.model.fingerprint, "corpus": corpus.fingerprint}
        description |= self._tokenising | self._harvest
        return self.cache_dir / "activations" / store_key(description)

    def prepare_data(self) -> None:
        """Harvests what the cache lacks; of several processes that want the same, one works and the others wait."""
        for corpus in (self.corpus, self.reference):
            folder, points = self.folder(corpus), self.points
            if all((folder / str(point) / INDEX).exists() for point in points):
                continue
            tokens = tokenise(corpus, self.model.tokenizer, **self._tokenising)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / "lock"):
                    write_sequences(folder, tokens.splits, tokens.groups)
                    harvest(self.model, points, tokens.splits, folder, **self._harvest)
            except OSError as error:
                raise OSError(
                    f"cache_dir={self.cache_dir} could not be written ({error}): give a folder with space and write access."
                ) from error

    def setup(self, stage: str | None = None) -> None:
        if self.rows:
            return
        self.rows, self.moments = self._open(self.corpus)
        self.reference_moments = self._open(self.reference)[1]

    def _open(self, corpus: Corpus) -> tuple[dict[str, Rows], Moments]:
        folder = self.folder(corpus) / str(self.point)
        stores = {split: ActivationStore(folder, split) for split in SPLITS}
        limit = float("inf") if self.max_norm_ratio is None else self.max_norm_ratio * median_norm(stores["train"])
        rows = {split: Rows(store, norm_filter(store, limit)) for split, store in stores.items()}
        with FileLock(folder / "lock"):
            file = folder / f"moments-{self.max_norm_ratio}.safetensors"
            return rows, moments(stores["train"], rows["train"].numbers, file)

    @property
    def d_in(self) -> int:
        return self.rows["train"].store.width

    def sample(self, split: str, count: int) -> Tensor:
        """(min(count, rows), d_in) float32: distinct random rows of a split, the same for the same seed."""
        rows = self.rows[split]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))[:count]
        return rows[order.sort().values]

    def train_dataloader(self) -> DataLoader[Tensor]:
        rank, world_size, start = 0, 1, 0
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            start = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        batches = ShuffledBatches(
            len(self.rows["train"]),
            self.batch_size,
            self.steps,
            start=start,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return self._loader("train", batches)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._ordered("validation")

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._ordered("test")

    def _ordered(self, split: str) -> DataLoader[Tensor]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return self._loader(
            split, OrderedBatches(len(self.rows[split]), self.batch_size, rank=rank, world_size=world_size)
        )

    def _loader(self, split: str, batches: Sampler[Tensor]) -> DataLoader[Tensor]:
        return DataLoader(
            self.rows[split], batch_size=None, sampler=batches, pin_memory=self.model.device.type == "cuda"
        )  # type: ignore[arg-type]
