"""One pass of the language model over token sequences, driven by Lightning, into the files of `atomlab.activations.store`."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, final

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from atomlab.activations.bounded_queue import BoundedQueue
from atomlab.activations.harvest.shards import Shard, document_of, passes, plan
from atomlab.activations.model.capture import capture, not_finite
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.files import (
    INDEX,
    file_entry,
    os_errors_as_unwritable,
    read_index,
    read_tensors,
    remove_unfinished,
    write_index,
    write_tensors,
)
from atomlab.activations.store.row_origins import Layout, has_sequences, read_layout, read_sequences, write_sequences
from atomlab.activations.tokens.sequences import Sequences, batch
from atomlab.activations.tokens.tokenise import SPLITS, Tokens
from atomlab.progress import token_bar

_PATIENCE = timedelta(days=2)  # of processes that wait for the first one's tokens, or for another run's harvest


def is_complete(folder: Path, points: Sequence[HookPoint]) -> bool:
    """Checks whether a harvest has all its files. Their sizes and checksums are not compared (`check_files`).

    Args:
        folder: folder of the harvest.
        points: the hook points that are wanted.

    Returns:
        Whether the token sequences are there, and for each hook point its index and every file that the index names.

    Raises:
        DamagedCacheError: an index is altered.
    """
    return has_sequences(folder) and all(
        (folder / str(point) / INDEX).exists()
        and all((folder / str(point) / name).exists() for name in _shards(folder / str(point) / INDEX))
        for point in points
    )


def _shards(index: Path) -> dict[str, dict[str, Any]]:
    return read_index(index, "shards")["shards"]


@final
class Harvester(LightningModule):
    """Writes what is missing of the activations at some hook points; each process takes its share of the files.

    Args:
        model: the language model.
        points: distinct hook points. The model is loaded as deep as the deepest of them.
        tokens: the tokenised corpus, on the first process, which holds the folder's lock; None on the other processes, and
            where the folder has the token sequences already.
        folder: folder of the harvest.
        description: returns what the index says of the origin; it is called once, by one process.
        layout: sizes of files and forward passes. A harvest that goes on keeps the sizes that it was begun with, except that
            its passes may become smaller.
        loaded: the loaded model, if this process has it already.
    """

    def __init__(
        self,
        model: LanguageModel,
        points: Sequence[HookPoint],
        tokens: Tokens | None,
        folder: Path,
        description: Callable[[], dict[str, Any]],
        layout: Layout,
        loaded: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model, self.points, self.tokens = model, points, tokens
        self.folder, self.description, self.layout = folder, description, layout
        self._given = [loaded]  # in a list, so that it becomes a part of this module in `setup` only
        self.records: dict[str, dict[str, Any]] = {}
        self.loaded: nn.Module | None = None
        self.placed: list[nn.Module] = []  # in place of `loaded`: Lightning must not move what `device_map` has placed
        self.writer: ShardWriter | None = None

    def setup(self, stage: str) -> None:
        self.on_sigterm = signal.getsignal(signal.SIGTERM)
        spread = self.model.placement.device_map
        if self.trainer.world_size > 1 and spread is not None:
            raise ValueError(
                f"model.device_map={spread} spreads one model over all devices, so one process harvests: use "
                "trainer.devices=1 for the harvest (harvest_only=true), and more for the training after it."
            )
        if self.trainer.is_global_zero and not is_complete(self.folder, self.points):  # a complete one may be read-only
            with os_errors_as_unwritable(self.folder):
                remove_unfinished(self.folder)
            if self.tokens is not None and not has_sequences(self.folder):
                write_sequences(self.folder, self.tokens, self.layout)
        self.trainer.strategy.barrier()
        begun = read_layout(self.folder)
        self.sequences = {split: read_sequences(self.folder, split) for split in SPLITS}
        self.shards = [
            shard
            for split, s in self.sequences.items()
            for shard in plan(split, s, begun.shard_rows, begun.batch_tokens)
        ]
        self.missing = {
            shard: wanted
            for shard in self.shards
            if (wanted := [point for point in self.points if not (self.folder / str(point) / shard.name).exists()])
        }
        self.trainer.strategy.barrier()  # before anybody writes
        self.mine = list(self.missing)[self.trainer.global_rank :: self.trainer.world_size]
        if self.mine:
            loaded = self._given.pop() or self.model.load(self.points)
            if self.model.placement.device_map is None:
                self.loaded = loaded
            else:
                self.placed = [loaded]
        # Each process has read the same file. Lightning would have the first one send its model to all others, and wait for
        # ever where one has no model, since there are fewer files to write than processes.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]

    def predict_dataloader(self) -> "ForwardPasses":
        return ForwardPasses(self.mine, self.sequences, self.layout.batch_tokens)

    def on_predict_start(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Lightning's handler would wait for other processes
            signal.signal(signal.SIGTERM, self.on_sigterm)
        cut = ((self.sequences[shard.split].lengths, span) for shard in self.mine for span in shard.batches)
        total = sum(int(lengths[start:stop].sum()) for lengths, (start, stop) in cut)
        self.bar = token_bar(total, "harvest", of_first_process=self.trainer.is_global_zero)
        self.writer = ShardWriter(self.folder, self.sequences, self.records.__setitem__)

    def predict_step(self, item: tuple[int, dict[str, Tensor], Tensor], batch_idx: int) -> int:
        number, inputs, kept = item
        assert self.writer is not None
        shard = self.mine[number]
        model = self.placed[0] if self.placed else self.loaded
        assert model is not None
        seen = capture(model, self.missing[shard], inputs)
        rows = {point: x.flatten(0, 1).index_select(0, kept.to(x.device)) for point, x in seen.items()}
        self.writer.put(shard, rows)
        self.bar.update(inputs["input_ids"].numel())
        return batch_idx

    def on_predict_end(self) -> None:
        self.close()
        self.loaded, self.placed = None, []  # its memory is the training's
        records = [self.records]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            records = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(records, self.records)
        if self.trainer.is_global_zero and not is_complete(self.folder, self.points):
            self._write_indices({name: entry for part in records for name, entry in part.items()})
        self.trainer.strategy.barrier()

    def close(self) -> None:
        """Waits for the writer. It is called after an error too, so that complete files stay and half-written ones do not."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            self.bar.close()
            writer.close()

    def _write_indices(self, new: dict[str, dict[str, Any]]) -> None:
        for point in self.points:
            folder = self.folder / str(point)
            old = _shards(folder / INDEX) if (folder / INDEX).exists() else {}
            shards = {}
            for shard in self.shards:
                entry = new.get(f"{point}/{shard.name}") or old.get(shard.name)
                shards[shard.name] = entry or {"rows": shard.rows} | file_entry(folder / shard.name)
            write_index(folder / INDEX, self.description() | self._summary(point) | {"shards": shards})

    def _summary(self, point: HookPoint) -> dict[str, Any]:
        folder = self.folder / str(point)
        x = read_tensors(folder / self.shards[0].name, "activations")["activations"]
        norms = torch.cat([read_tensors(folder / s.name, "norms")["norms"] for s in self.shards if s.split == "train"])
        rows = {split: s.rows for split, s in self.sequences.items()}
        summary = {"hook_point": str(point), "dtype": str(x.dtype).removeprefix("torch."), "width": x.shape[1]}
        ordered = norms.double().sort().values
        levels = {str(q): float(ordered[int(q * (len(ordered) - 1))]) for q in (0, 0.01, 0.1, 0.5, 0.9, 0.99, 1)}
        return summary | {"rows": rows, "train_norm": {"mean": float(ordered.mean()), "quantiles": levels}}


def harvest(harvester: Harvester, precision: str, trainer: Trainer | None = None) -> None:
    """Harvests what is missing, on the model's device, or on all processes of `trainer` if it has several.

    An interrupted harvest goes on where it was, and ends the same. Every process of `trainer` calls this; the first one
    holds the lock of the folder.

    Args:
        harvester: what to harvest, and where to.
        precision: of the forward passes, as Lightning names it.
        trainer: its processes share the work, if it has several.

    Raises:
        ValueError: activations that are not finite.
        OSError: no room left on the disk; complete files stay.
    """
    alone = trainer is None or trainer.world_size == 1
    try:
        _trainer(harvester.model.device, None if alone else trainer, precision).predict(
            harvester, return_predictions=False
        )
    finally:
        harvester.close()


def _trainer(device: torch.device, trainer: Trainer | None, precision: Any) -> Trainer:
    """Returns a trainer of one process on `device`, or of as many processes as the given trainer has."""
    return Trainer(
        accelerator=device.type if trainer is None else trainer.accelerator,
        devices=([device.index] if device.index is not None else 1) if trainer is None else trainer.num_devices,
        num_nodes=1 if trainer is None else trainer.num_nodes,
        strategy="auto" if trainer is None else DDPStrategy(timeout=_PATIENCE),
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@final
class ForwardPasses:
    """Gives the forward passes of some shards: number of the shard, inputs of the model, numbers of the kept tokens.

    Args:
        shards: the shards, which are numbered from 0 in this order.
        sequences: the token sequences of each split, by its name.
        batch_tokens: tokens of a forward pass, at most; a longer sequence is a pass of its own.
    """

    def __init__(self, shards: Sequence[Shard], sequences: dict[str, Sequences], batch_tokens: int) -> None:
        self.shards, self.sequences, self.batch_tokens = shards, sequences, batch_tokens

    def __iter__(self) -> Iterator[tuple[int, dict[str, Tensor], Tensor]]:
        for number, shard in enumerate(self.shards):
            sequences = self.sequences[shard.split]
            for start, stop in passes(shard, sequences, self.batch_tokens):
                made = batch(sequences, start, stop)
                yield number, made.inputs, made.kept


_AHEAD = 4  # batches that wait for the writer; the model waits when there are more


@final
class ShardWriter:
    """Collects the vectors of a shard, and writes them in a thread, one file for each hook point.

    Args:
        folder: folder of the harvest.
        sequences: the token sequences of each split, by its name; an error names the document that it is in.
        written: is told the name of each file, seen from the folder, and its entry in the index.
    """

    def __init__(
        self, folder: Path, sequences: Mapping[str, Sequences], written: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self._folder, self._sequences, self._written = folder, sequences, written
        self._queue: BoundedQueue[tuple[Shard, Mapping[HookPoint, Tensor]] | None] = BoundedQueue(_AHEAD)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="shard writer", daemon=True)
        self._thread.start()

    def put(self, shard: Shard, rows: Mapping[HookPoint, Tensor]) -> None:
        """Takes the next vectors of a shard at each hook point. Shards come one after the other.

        Args:
            shard: the shard that they belong to.
            rows: (rows, width) by hook point, on any device.

        Raises:
            OSError, ValueError: an earlier shard could not be written.
        """
        self._queue.put((shard, rows))
        self._raise()

    def close(self) -> None:
        """Waits until everything is written. Raises as `put`."""
        self._queue.put_now(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        pending: dict[HookPoint, list[Tensor]] = {}
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # takes what still comes, so that nobody waits for a full queue
            try:
                shard, rows = item
                for point, part in rows.items():
                    pending.setdefault(point, []).append(part.cpu())
                if sum(map(len, next(iter(pending.values())))) == shard.rows:
                    for point in list(pending):
                        self._write(point, shard, torch.cat(pending.pop(point)))
            except BaseException as error:
                self._error = error

    def _write(self, point: HookPoint, shard: Shard, activations: Tensor) -> None:
        norms = activations.float().norm(dim=1)
        if not (finite := norms.isfinite()).all():
            document = document_of(shard, self._sequences[shard.split], int(finite.logical_not().nonzero()[0]))
            raise not_finite(point, document, "the corpus")
        name = f"{point}/{shard.name}"
        record = write_tensors(self._folder / name, {"activations": activations, "norms": norms})
        self._written(name, {"rows": shard.rows} | record)
