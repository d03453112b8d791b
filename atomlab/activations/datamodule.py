"""Activations as batches for Lightning, from the cache or straight from the language model."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from atomlab.activations.batches.background import Background
from atomlab.activations.batches.gather import Gathered
from atomlab.activations.batches.lockstep import Lockstep, TurnsOfTask
from atomlab.activations.batches.online import OnlineBatches, StreamPosition, forward_passes, kept_rows
from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.batches.shuffle import RandomBatches, ShuffledBatches, random_order
from atomlab.activations.corpora.corpus import Corpus, Example
from atomlab.activations.harvest.cache import HarvestCache, HarvestOptions
from atomlab.activations.harvest.preflight import Prepared
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import Rows
from atomlab.activations.store.moments import Moments, exact_moments
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.store.statistics import render_statistics, site_statistics
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import TokenRules, encode, lay_out
from atomlab.groups import Axis, Groups


@final
class ActivationDataModule(LightningDataModule):
    """Activations of a language model at one hook point, harvested once per corpus and cached.

    Args:
        model: the language model.
        corpus: whose activations are trained and tested on.
        reference: the corpus whose second moment defines the atomic inner product S.
        hook_points: where in the model, and what is harvested beside it.
        tokens: how text becomes tokens, and which of their activations are kept.
        harvest: how harvests are made, and where they are kept.
        outliers: which vectors are left out.
        batches: size, number and order of the training batches.

    Raises:
        ValueError, FileNotFoundError, OSError: one sentence each, from the part that is at fault.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        reference: Corpus,
        *,
        hook_points: HookPoints,
        harvest: HarvestOptions,
        tokens: TokenRules = TokenRules(),
        outliers: Outliers = Outliers(),
        batches: TrainingBatches = TrainingBatches(),
    ) -> None:
        super().__init__()
        self.model, self.corpus, self.reference = model, corpus, reference
        self.hook_points, self.outliers, self.batches = hook_points, outliers, batches
        self.harvests = HarvestCache(model, tokens, harvest)
        self.rows: dict[str, Rows] = {}
        self._resumed: dict[str, Any] | None = None
        self._stream: OnlineBatches | None = None
        self._lockstep: Lockstep | None = None
        self._coordinates: Callable[[Tensor], Tensor] | None = None

    @property
    def point(self) -> HookPoint:
        """The hook point whose activations are trained on."""
        return self.hook_points.own(self.model)

    @property
    def points(self) -> list[HookPoint]:
        """All hook points that one pass of the model harvests, the own one first."""
        return self.hook_points.harvested(self.model)

    @property
    def seed(self) -> int:
        """The seed of the data: of the split and of the samples."""
        return self.harvests.rules.seed

    def at(self, site: str, layer: int) -> "ActivationDataModule":
        """Makes the same data at another hook point, not set up yet.

        This costs nothing; where the hook point is among `hook_points`, one pass of the model harvests both.

        Args:
            site: a short name such as `resid_post`, or the path of a hook point, as in `HookPoints`.
            layer: number of the layer, counted from 0.

        Returns:
            A new module with the same model, corpora, cache and options; this one stays as it is.
        """
        other = copy(self)
        other.hook_points = self.hook_points.at(site, layer)
        other.rows, other.trainer, other._stream = {}, None, None
        return other

    def in_lockstep(self, lockstep: Lockstep) -> "ActivationDataModule":
        """Makes the same data for one of several trainings in this process, which take each batch in turns.

        Where this one is set up, the other one is too.
        """
        other = copy(self)
        other.trainer, other._resumed, other._lockstep = None, None, lockstep
        return other

    def train_in(self, coordinates: Callable[[Tensor], Tensor] | None) -> bool:
        """Lets the thread that reads ahead map the training vectors, while the step before still computes.

        Args:
            coordinates: maps vectors (rows, d_in) on the CPU; None leaves them as they are.

        Returns:
            Whether training batches are mapped from now on. Those straight from the language model are not.
        """
        self._coordinates = None if self.batches.online is not None else coordinates
        return self._coordinates is not None

    def over_layers(self, layers: Sequence[int]) -> "ActivationDataModule":
        """Returns the same data at the first of some layers, not set up yet; one pass of the model harvests them all."""
        other = self.at(self.hook_points.site, layers[0])
        other.hook_points = replace(other.hook_points, layers=layers)
        return other

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the vectors and their order, as plain JSON: what a run is as far as its data go.

        Its keys are those of conf/, so that a difference between two runs is named as the user would set it.
        """
        tokens = asdict(self.harvests.rules)
        order: dict[str, Any] = {"seed": self.batches.seed}
        if self.batches.vectors is not None:
            order["vectors"] = self.batches.vectors
        if self.batches.online is None:
            order |= {"block_rows": self.batches.block_rows, "window_rows": self.batches.window_rows}
        else:
            order |= {"online": {"buffer_rows": self.batches.online.buffer_rows}}
        return {
            "model": self.model.fingerprint,
            "hook_point": str(self.point),
            "corpus": self.corpus.fingerprint,
            "reference": self.reference.fingerprint,
            "activations": {
                "tokens": tokens | {"fractions": list(tokens["fractions"])},
                "harvest": {"precision": self.harvests.options.precision},
                "outliers": asdict(self.outliers),
                "batches": order,
            },
        }

    def folder(self, corpus: Corpus) -> Path:
        """Returns the folder of a corpus's harvest (`HarvestCache.folder`), which need not exist yet."""
        return self.harvests.folder(corpus)

    def prepare(self) -> Prepared:
        """Checks all that can be known before the first pass, and writes nothing (`HarvestCache.prepare`)."""
        return self.harvests.prepare((self.corpus, self.reference), self.points)

    def harvest(self, trainer: Trainer | None = None, check: Callable[[Prepared], object] | None = None) -> None:
        """Harvests what the cache lacks (`HarvestCache.ensure`).

        Args:
            trainer: its processes share the work, if it has several; None works in this process alone.
            check: called on the first process with what was prepared, before anything is harvested; raises what it
                finds wrong. None checks nothing more.

        Raises:
            ValueError, FileNotFoundError, OSError: as `HarvestCache.ensure`.
        """
        self.harvests.ensure((self.corpus, self.reference), self.points, trainer, check)

    def prepare_data(self) -> None:
        self.harvest()

    def setup(self, stage: str | None = None) -> None:
        if not self.rows:
            self.rows, self.moments = self._open(self.corpus)
            self._choose_vectors()
            self.reference_moments = self._open(self.reference)[1]

    def _open(self, corpus: Corpus) -> tuple[dict[str, Rows], Moments]:
        return self.harvests.open(corpus, self.point, self.outliers)

    def _choose_vectors(self) -> None:
        """Leaves as many training vectors as `batches.vectors` says, with their own moments."""
        every, count = self.rows["train"], self.batches.vectors
        if count is not None and count < len(every):
            chosen = random_order(len(every), self.seed)[:count].sort().values
            self.rows = self.rows | {"train": Rows(every.store, every.numbers[chosen])}
            self.moments = exact_moments(self.rows["train"])

    def print_statistics(self) -> None:
        """Prints what is worth knowing of each harvested site before a training, on the first process."""
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        for point in self.points:
            rows, found = self.harvests.open(self.corpus, point, self.outliers)
            statistics = site_statistics(rows["train"].store, found, self.outliers)
            sys.stdout.write(f"{render_statistics(str(point), statistics, self.model.tokenizer)}\n")

    @property
    def d_in(self) -> int:
        """Number of values in a training vector; known after `setup`."""
        return self.rows["train"].store.width

    def sample(self, split: str, count: int) -> Tensor:
        """Draws distinct rows of a split at random.

        The same seed gives the same rows, and the first n rows of a larger sample are the sample of n. The first n vectors of
        the validation's batches, over all processes, are `sample("validation", n)` if the number of processes divides n.

        Args:
            split: train, validation or test.
            count: number of rows; all rows where there are fewer.

        Returns:
            (min(count, rows), d_in) float32, in random order.
        """
        rows = self.rows[split]
        order = random_order(len(rows), self.seed)[:count].sort()
        return rows[order.values][order.indices.argsort()]

    def sample_groups(self, split: str, count: int) -> list[str]:
        """Returns the group of each row of `sample(split, count)`: a document's title, a subject or a template."""
        rows = self.rows[split]
        return rows.origin(random_order(len(rows), self.seed)[:count]).group

    def train_dataloader(self) -> Background[Tensor] | OnlineBatches | TurnsOfTask:
        data, start, count = Groups.of(self.trainer).data, 0, self.batches.steps
        if self.trainer is not None:
            start = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            count *= self.trainer.accumulate_grad_batches
        if self.batches.online is not None:
            self._stream = self._online(data, count)
            return self._stream

        def read(first: int) -> Background[Tensor]:
            batches = ShuffledBatches(
                len(self.rows["train"]),
                self.batches.size,
                count,
                start=first,
                seed=self.batches.seed,
                rank=data.rank,
                world_size=data.size,
                block_rows=self.batches.block_rows,
                window_rows=self.batches.window_rows,
                rising=True,  # before the rows are dealt out: the noise of a vector depends on its place in the whole batch
            )
            rows = Gathered(self.rows["train"].__getitem__, batches, self._pinned, self._coordinates)
            return Background(rows, len(batches))

        return read(start) if self._lockstep is None else self._lockstep.batches(read, start, count)

    def val_dataloader(self) -> Background[Tensor]:
        """Returns the validation split in random order.

        There is no loader of the test split: only the closing table and the studies read it, by `sample` and `rows`.
        """
        data, rows = Groups.of(self.trainer).data, self.rows["validation"]
        batches = RandomBatches(len(rows), self.batches.size, seed=self.seed, rank=data.rank, world_size=data.size)
        return Background(Gathered(rows.__getitem__, batches, self._pinned), len(batches))

    def state_dict(self) -> dict[str, Any]:
        """Returns where the training stands, for an exact resume.

        The order of cached vectors is a function of the step. In online training the buffers of all processes are kept too.
        """
        assert self.trainer is not None
        step = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        state: dict[str, Any] = {"step": step, **self._order}
        if self._stream is not None:
            # by the rank of their data, on each process: Lightning asks all, and writes what the first has
            state["online"] = Groups.of(self.trainer).data.gather_objects(self._stream.state())
        else:
            per_epoch = len(self.rows["train"]) // self.batches.size
            state |= {"epoch": step // per_epoch, "position": step % per_epoch * self.batches.size}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state of `state_dict`. Raises ValueError if it is of another order of the training vectors."""
        for name, now in self._order.items():
            if state_dict.get(name) != now:
                raise ValueError(
                    f"The checkpoint was trained with {name}={state_dict.get(name)}, and now it is {now}: resume with the same."
                )
        self._resumed = state_dict

    @property
    def _order(self) -> dict[str, Any]:
        """What the order of the training batches depends on, beside the step."""
        order = {"seed": self.batches.seed, "batch_size": self.batches.size, "rows": len(self.rows["train"])}
        if self.batches.online is None:
            return order | {"block_rows": self.batches.block_rows, "window_rows": self.batches.window_rows}
        processes = Groups.of(self.trainer).data.size  # each has a buffer and a share of its own
        return order | {"buffer_rows": self.batches.online.buffer_rows, "processes": processes}

    def _online(self, data: Axis, count: int) -> OnlineBatches:
        online, rules, tokenizer = self.batches.online, self.harvests.rules, self.model.tokenizer
        assert online is not None
        held_out = self.rows["validation"].store.origins.all_groups | self.rows["test"].store.origins.all_groups
        limit = self.outliers.limit(self.rows["train"].store.norms)

        def lay_out_some(examples: list[Example]) -> Sequences:
            mine = [number for number, example in enumerate(examples) if example.group not in held_out]
            documents = list(encode([examples[number] for number in mine], tokenizer, self.corpus.position))
            return lay_out(documents, mine, tokenizer, rules, packed=self.corpus.packed)

        def rows(position: StreamPosition) -> Iterator[tuple[Tensor, StreamPosition]]:
            passes = forward_passes(
                self.corpus,
                lay_out_some,
                position,
                batch_tokens=self.harvests.layout.batch_tokens,
                seed=self.batches.seed,
                rank=data.rank,
                world_size=data.size,
            )
            share = "the corpus" if data.size == 1 else f"the share that process {data.rank} of {data.size} reads"
            return kept_rows(self.model, self.point, passes, limit, share)

        state = None if self._resumed is None else self._resumed["online"][data.rank]
        return OnlineBatches(
            rows, online, self.batches.size // data.size, count, seed=self.batches.seed, rank=data.rank, state=state,
            pinned=self._pinned,
        )  # fmt: skip

    @property
    def _pinned(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
