"""Activations as batches for Lightning, from the cache or straight from the language model."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from atomlab.activations.batches.background import Background
from atomlab.activations.batches.online import Online, OnlineBatches, StreamPosition, forward_passes, kept_rows
from atomlab.activations.batches.shuffle import RandomBatches, ShuffledBatches, random_order
from atomlab.activations.corpora.corpus import Corpus, Example
from atomlab.activations.harvest.cache import HarvestCache
from atomlab.activations.harvest.preflight import Prepared, check_sizes
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import Rows
from atomlab.activations.store.moments import Moments
from atomlab.activations.store.origins import Layout
from atomlab.activations.store.statistics import render_statistics, site_statistics
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import encode, lay_out


@final
class ActivationDataModule(LightningDataModule):
    """Activations of a language model at one site, harvested once per corpus and cached.

    Args:
        model: the language model.
        corpus: whose activations are trained and tested on.
        reference: whose second moment defines the atomic inner product.
        site: a short name or a hook point's path (sites.py).
        layer: counted from 0.
        cache_dir: where harvests are kept.
        sites, layers: harvested in the same pass: each of these sites, and `site`, at each of these layers, and
            `layer`.
        context: tokens a sequence.
        max_tokens: vectors harvested over all splits (None: all).
        fractions: of them for train, validation and test.
        batch_size: vectors a training batch, over all processes.
        steps: of the run's optimiser, each over the trainer's `accumulate_grad_batches` batches.
        drop_first: leave out position 0 (attention sink); of each document, if they are kept apart.
        drop_special: leave out special tokens.
        separate_documents: packed documents do not see one another, in models that can do this.
        max_norm_ratio: leave out vectors whose norm is above this many times the median (None: keep all).
        shard_rows, harvest_batch_tokens: size of a file and of a forward pass.
        precision: of the harvest, as Lightning names it; "32-true" computes in the model's own dtype.
        source: an fsspec URL of another cache folder, looked into before anything is harvested (None: none).
        verify: compare every byte of the cache with its checksum before training, about 1.5 GB/s and core.
        block_rows, window_rows: of the block shuffle (shuffle.py).
        online: train on vectors straight from the model, epoch after epoch of the corpus without its held-out groups;
            calibration, validation, test and moments stay with the cache (None: train from the cache).
        seed: of the data: of the split, of the sample of sequences, and of the measured samples. It has nothing to do
            with the seed of a run, so that runs of several seeds have the same data.
        order_seed: of the order of the training vectors.

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
        precision: str = "32-true",
        source: str | None = None,
        verify: bool = True,
        block_rows: int = 64,
        window_rows: int = 262_144,
        online: Online | None = None,
        seed: int = 0,
        order_seed: int = 0,
    ) -> None:
        super().__init__()
        if steps < 1 or batch_size < 1:
            raise ValueError(f"steps={steps} and batch_size={batch_size} train nothing: use 1 or more of each.")
        check_sizes(
            max_norm_ratio=max_norm_ratio,
            max_tokens=max_tokens,
            shard_rows=shard_rows,
            harvest_batch_tokens=harvest_batch_tokens,
            block_rows=block_rows,
            window_rows=window_rows,
        )
        self.model, self.corpus, self.reference = model, corpus, reference
        self.site, self.layer, self.cache_dir = site, layer, Path(cache_dir).expanduser()
        self.sites, self.layers = [site, *sites], [layer, *layers]
        self.batch_size, self.steps, self.max_norm_ratio = batch_size, steps, max_norm_ratio
        self.seed, self.order_seed = seed, order_seed
        self.block_rows, self.window_rows, self.verify, self.online = block_rows, window_rows, verify, online
        self._tokenising = {"context": context, "fractions": list(fractions), "max_rows": max_tokens, "seed": seed}
        self._tokenising |= {"drop_first": drop_first, "drop_special": drop_special}
        self._separate, self._source = separate_documents, source
        self._layout, self._precision = Layout(shard_rows, harvest_batch_tokens), precision
        self.rows: dict[str, Rows] = {}
        self._resumed: dict[str, Any] | None = None
        self._batches: OnlineBatches | None = None

    @property
    def point(self) -> HookPoint:
        return self._point(self.site, self.layer)

    @property
    def points(self) -> list[HookPoint]:
        """All that one pass harvests: the own hook point first."""
        others = (self._point(site, layer) for site in self.sites for layer in self.layers)
        return list(dict.fromkeys([self.point, *others]))

    def _point(self, site: str, layer: int) -> HookPoint:
        point = self.model.hook_point(site, layer)
        if "." in site and "{layer}" not in site and point.num_layers not in (None, layer + 1):
            raise ValueError(
                f"site.name={site} names layer {(point.num_layers or 0) - 1}, and layer={layer}: write {{layer}} in the "
                "place of its number, or give the same number as layer."
            )
        return point

    def at(self, site: str, layer: int) -> "ActivationDataModule":
        """The same data at another hook point, cheap to get; harvest it first (`sites`, `layers`) to pay for one pass
        only.
        """
        other = copy(self)
        other.site, other.layer, other.rows, other.trainer, other._batches = site, layer, {}, None, None
        return other

    @property
    def harvests(self) -> HarvestCache:
        """Of this model, under these rules."""
        apart = self._separate and self.model.separates_documents
        rules = self._tokenising | {"apart": apart}
        return HarvestCache(self.model, self.cache_dir, rules, self._layout, self._precision, self._source)

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the vectors and their order, JSON-serialisable: what a run is as far as its data go."""
        rules = {name: value for name, value in self.harvests.tokenising.items() if name != "max_rows"}
        order = {"block_rows": self.block_rows, "window_rows": self.window_rows}
        order = order if self.online is None else {"online": {"buffer_rows": self.online.buffer_rows}}
        return {
            "model": self.model.fingerprint,
            "hook_point": str(self.point),
            "corpus": self.corpus.fingerprint,
            "reference": self.reference.fingerprint,
            "activations": {
                "max_tokens": self.harvests.tokenising["max_rows"],
                "precision": self._precision,
                "max_norm_ratio": self.max_norm_ratio,
                "order_seed": self.order_seed,
                **rules,
                **order,
            },
        }

    def folder(self, corpus: Corpus) -> Path:
        return self.harvests.folder(corpus)

    def prepare(self) -> Prepared:
        """Checks all that can be known before the first pass, and writes nothing (`HarvestCache.prepare`)."""
        return self.harvests.prepare((self.corpus, self.reference), self.points)

    def harvest(self, trainer: Trainer | None = None, check: Callable[[Prepared], None] | None = None) -> None:
        """HarvestCache what the cache lacks (`HarvestCache.ensure`), on all processes of `trainer` if it has several."""
        self.harvests.ensure((self.corpus, self.reference), self.points, trainer, check)

    def prepare_data(self) -> None:
        self.harvest()

    def setup(self, stage: str | None = None) -> None:
        if not self.rows:
            self.rows, self.moments = self._open(self.corpus)
            self.reference_moments = self._open(self.reference)[1]

    def _open(self, corpus: Corpus) -> tuple[dict[str, Rows], Moments]:
        return self.harvests.open(corpus, self.point, self.max_norm_ratio, self.verify)

    def print_statistics(self) -> None:
        """What is worth seeing of each harvested site of the corpus before training, on the first process."""
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        for point in self.points:
            rows, found = self.harvests.open(self.corpus, point, self.max_norm_ratio, verify=self.verify)
            statistics = site_statistics(rows["train"].store, found, self.max_norm_ratio)
            sys.stdout.write(f"{render_statistics(str(point), statistics, self.model.tokenizer)}\n")

    @property
    def d_in(self) -> int:
        return self.rows["train"].store.width

    def sample(self, split: str, count: int) -> Tensor:
        """(min(count, rows), d_in) float32: distinct random rows of a split in random order, so that the first n of them
        are a sample too (rows lie by length of their sequence); the same for the same seed. The first n vectors of the
        validation's batches, over all processes, are `sample("validation", n)` if their number divides n.
        """
        rows = self.rows[split]
        order = random_order(len(rows), self.seed)[:count].sort()
        return rows[order.values][order.indices.argsort()]

    def train_dataloader(self) -> Background[Tensor] | OnlineBatches:
        rank, world_size, start, count = 0, 1, 0, self.steps
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            start = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            count *= self.trainer.accumulate_grad_batches
        if self.online is not None:
            self._batches = self._online(rank, world_size, count)
            return self._batches
        batches = ShuffledBatches(
            len(self.rows["train"]),
            self.batch_size,
            count,
            start=start,
            seed=self.order_seed,
            rank=rank,
            world_size=world_size,
            block_rows=self.block_rows,
            window_rows=self.window_rows,
        )
        return Background(_Gathered(self.rows["train"].in_disk_order, batches, self._pinned), len(batches))

    def val_dataloader(self) -> Background[Tensor]:
        """The validation split in random order. There is no loader of the test split, which only the closing table and
        the studies read, by `sample` and `rows`.
        """
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        rows = self.rows["validation"]
        batches = RandomBatches(len(rows), self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        return Background(_Gathered(rows.__getitem__, batches, self._pinned), len(batches))

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, for an exact resume: the cached order is a function of it; online, the buffers
        of all processes.
        """
        assert self.trainer is not None
        step = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        state: dict[str, Any] = {"step": step, **self._order}
        if self._batches is not None:
            state["online"] = _of_all_processes(self._batches.state())
        else:
            per_epoch = len(self.rows["train"]) // self.batch_size
            state |= {"epoch": step // per_epoch, "position": step % per_epoch * self.batch_size}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError if the order of another run is asked for."""
        for name, now in self._order.items():
            if state_dict.get(name) != now:
                raise ValueError(
                    f"The checkpoint was trained with {name}={state_dict.get(name)}, and now it is {now}: resume with the same."
                )
        self._resumed = state_dict

    @property
    def _order(self) -> dict[str, Any]:
        """What the order of the training batches depends on, beside the step."""
        order = {"seed": self.order_seed, "batch_size": self.batch_size, "rows": len(self.rows["train"])}
        if self.online is None:
            return order | {"block_rows": self.block_rows, "window_rows": self.window_rows}
        processes = 1 if self.trainer is None else self.trainer.world_size  # each has a buffer and a share of its own
        return order | {"buffer_rows": self.online.buffer_rows, "processes": processes}

    def _online(self, rank: int, world_size: int, count: int) -> OnlineBatches:
        assert self.online is not None
        store, rules = self.rows["train"].store, self.harvests.tokenising
        held_out = self.rows["validation"].store.origins.all_groups | self.rows["test"].store.origins.all_groups
        limit = float("inf") if self.max_norm_ratio is None else self.max_norm_ratio * float(store.norms.median())
        options = {name: rules[name] for name in ("context", "drop_first", "drop_special", "apart")}

        def lay_out_some(examples: list[Example]) -> Sequences:
            mine = [example for example in examples if example.group not in held_out]
            documents = list(encode(mine, self.model.tokenizer, self.corpus.position))
            numbers = list(range(len(documents)))
            return lay_out(documents, numbers, self.model.tokenizer, packed=self.corpus.packed, **options)

        def rows(position: StreamPosition) -> Iterator[tuple[Tensor, StreamPosition]]:
            passes = forward_passes(
                self.corpus,
                lay_out_some,
                position,
                batch_tokens=self._layout.batch_tokens,
                seed=self.order_seed,
                rank=rank,
                world_size=world_size,
            )
            return kept_rows(self.model, self.point, passes, limit)

        state = None if self._resumed is None else self._resumed["online"][rank]
        return OnlineBatches(
            rows, self.online, self.batch_size // world_size, count, seed=self.order_seed, rank=rank, state=state,
            pinned=self._pinned,
        )  # fmt: skip

    @property
    def _pinned(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


@final
class _Gathered:
    """Batches of rows by batches of their numbers, in memory that a GPU copies from without the CPU if `pinned`."""

    def __init__(self, gather: Callable[[Tensor], Tensor], batches: Iterable[Tensor], pinned: bool) -> None:
        self.gather, self.batches, self.pinned = gather, batches, pinned

    def __iter__(self) -> Iterator[Tensor]:
        for index in self.batches:
            batch = self.gather(index)
            yield batch.pin_memory() if self.pinned else batch


def _of_all_processes(state: dict[str, Any]) -> list[dict[str, Any]]:
    """By rank, on every process: Lightning asks all of them and writes what the first one has."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states
