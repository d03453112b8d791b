"""One pass of the language model over token sequences, driven by Lightning, into the shards of `store.py`."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import torch
from filelock import FileLock
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from tqdm.auto import tqdm

from atomlab.activations.capture import capture
from atomlab.activations.language_model import LanguageModel
from atomlab.activations.origins import has_sequences, read_sequences, write_sequences
from atomlab.activations.plan import Shard, batch, plan
from atomlab.activations.sequences import Sequences
from atomlab.activations.sites import HookPoint
from atomlab.activations.store import (
    INDEX,
    LOCK,
    read_index,
    read_tensors,
    record,
    remove_unfinished,
    write_index,
    writing,
)
from atomlab.activations.tokens import SPLITS, Tokens
from atomlab.activations.writer import ShardWriter


def is_complete(folder: Path, points: Sequence[HookPoint]) -> bool:
    """Whether the token sequences are there, and each hook point with its index and every shard that it names; sizes
    and checksums are for `store.check`.
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
    """Writes what is missing of the hook points' activations; each process takes its share of the shards.

    Args:
        model: the language model, loaded as deep as the deepest hook point.
        points: distinct hook points.
        tokens: gives the tokenised corpus; called by one process, once a harvest.
        folder: of the harvest.
        description: goes into the index; called by one process, once a harvest.
        shard_rows, batch_tokens: see `plan`.
    """

    def __init__(
        self,
        model: LanguageModel,
        points: Sequence[HookPoint],
        tokens: Callable[[], Tokens],
        folder: Path,
        description: Callable[[], dict[str, Any]],
        *,
        shard_rows: int,
        batch_tokens: int,
    ) -> None:
        super().__init__()
        self.model, self.points, self.tokens = model, points, tokens
        self.folder, self.description = folder, description
        self.shard_rows, self.batch_tokens = shard_rows, batch_tokens
        self.lock = FileLock(folder / LOCK)
        self.records: dict[str, dict[str, Any]] = {}
        self.loaded: nn.Module | None = None
        self.writer: ShardWriter | None = None

    def setup(self, stage: str) -> None:
        # of several runs that want the same, one works and the others wait here; a complete harvest may be read-only
        if self.trainer.is_global_zero and not is_complete(self.folder, self.points):
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self.lock.acquire()
                remove_unfinished(self.folder)
            if not has_sequences(self.folder):
                write_sequences(self.folder, self.tokens())
        self.trainer.strategy.barrier()
        self.sequences = {split: read_sequences(self.folder, split) for split in SPLITS}
        self.shards = [
            shard for split, s in self.sequences.items() for shard in plan(split, s, self.shard_rows, self.batch_tokens)
        ]
        self.missing = {
            shard: wanted
            for shard in self.shards
            if (wanted := [point for point in self.points if not (self.folder / str(point) / shard.name).exists()])
        }
        self.trainer.strategy.barrier()  # before anybody writes
        self.mine = list(self.missing)[self.trainer.global_rank :: self.trainer.world_size]
        if self.mine:
            depths = [point.num_layers for point in self.points]
            self.loaded = self.model.load(None if None in depths else max(depth for depth in depths if depth))

    def predict_dataloader(self) -> "Batches":
        return Batches(self.mine, self.sequences)

    def on_predict_start(self) -> None:
        self._check_space()
        total = sum(int(s.lengths[a:b].sum()) for shard in self.mine for s, a, b in _batches(shard, self.sequences))
        self.writer = ShardWriter(self.folder, self.records.__setitem__)
        self.bar = tqdm(
            total=total, unit=" tokens", unit_scale=True, desc="harvest", disable=not self.trainer.is_global_zero
        )

    def predict_step(self, item: tuple[int, dict[str, Tensor], Tensor], batch_idx: int) -> int:
        number, inputs, kept = item
        assert self.loaded is not None
        assert self.writer is not None
        shard = self.mine[number]
        seen = capture(self.loaded, self.missing[shard], inputs)
        self.writer.put(shard, {point: x.flatten(0, 1).index_select(0, kept) for point, x in seen.items()})
        self.bar.update(inputs["input_ids"].numel())
        return batch_idx

    def on_predict_end(self) -> None:
        self.close()
        self.loaded = None  # its memory is the training's
        records = [self.records]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            records = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(records, self.records)
        if self.lock.is_locked:
            self._write_indices({name: entry for part in records for name, entry in part.items()})
        self.lock.release()
        self.trainer.strategy.barrier()

    def close(self) -> None:
        """Waits for the writer; also after an error, so that what is complete stays and nothing half-written does."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            self.bar.close()
            writer.close()

    def _check_space(self) -> None:
        """Raises OSError unless the disk has room for all that is missing."""
        if not (self.mine and self.trainer.is_global_zero):
            return
        assert self.loaded is not None
        tokens = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        seen = capture(self.loaded, self.points, {"input_ids": tokens})
        of_row = {point: x.shape[-1] * x.element_size() + 4 for point, x in seen.items()}
        needed = sum(shard.rows * of_row[point] for shard, points in self.missing.items() for point in points)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"The harvest needs {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB left; free some space, "
                f"or lower activations.max_tokens"
            )

    def _write_indices(self, new: dict[str, dict[str, Any]]) -> None:
        for point in self.points:
            folder = self.folder / str(point)
            old = _shards(folder / INDEX) if (folder / INDEX).exists() else {}
            shards = {}
            for shard in self.shards:
                entry = new.get(f"{point}/{shard.name}") or old.get(shard.name)
                shards[shard.name] = entry or {"rows": shard.rows} | record(folder / shard.name)
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


def harvest(
    model: LanguageModel,
    points: Sequence[HookPoint],
    tokens: Callable[[], Tokens],
    folder: Path,
    description: Callable[[], dict[str, Any]],
    *,
    shard_rows: int,
    batch_tokens: int,
    precision: str,
    trainer: Trainer | None = None,
) -> None:
    """Harvests what is missing, on the model's device, or on all processes of `trainer` if it has several.

    An interrupted harvest goes on where it was, and ends the same. Every process of `trainer` calls this.

    Raises:
        ValueError: activations that are not finite; a fault of the corpus.
        OSError: no room on the disk, or none left; complete shards stay.
    """
    alone = trainer is None or trainer.world_size == 1
    if alone and is_complete(folder, points):
        return
    harvester = Harvester(model, points, tokens, folder, description, shard_rows=shard_rows, batch_tokens=batch_tokens)
    try:
        _trainer(model.device, None if alone else trainer, precision).predict(harvester, return_predictions=False)
    finally:
        harvester.close()
        harvester.lock.release()


def _trainer(device: torch.device, trainer: Trainer | None, precision: Any) -> Trainer:
    """One process on `device`, or as many as the given trainer has, where it has them."""
    return Trainer(
        accelerator=device.type if trainer is None else trainer.accelerator,
        devices=([device.index] if device.index is not None else 1) if trainer is None else trainer.num_devices,
        num_nodes=1 if trainer is None else trainer.num_nodes,
        strategy="auto" if trainer is None else "ddp",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@final
class Batches:
    """The batches of some shards: number of the shard, inputs of the model, numbers of the kept tokens."""

    def __init__(self, shards: Sequence[Shard], sequences: dict[str, Sequences]) -> None:
        self.shards, self.sequences = shards, sequences

    def __iter__(self) -> Iterator[tuple[int, dict[str, Tensor], Tensor]]:
        for number, shard in enumerate(self.shards):
            for sequences, start, stop in _batches(shard, self.sequences):
                made = batch(sequences, start, stop)
                yield number, made.inputs, made.kept


def _batches(shard: Shard, sequences: dict[str, Sequences]) -> list[tuple[Sequences, int, int]]:
    return [(sequences[shard.split], start, stop) for start, stop in shard.batches]
