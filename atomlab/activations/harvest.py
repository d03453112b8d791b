"""One pass of the language model over token sequences, into the shards of `store.py`."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from atomlab.activations.capture import capture
from atomlab.activations.language_model import LanguageModel
from atomlab.activations.sites import HookPoint
from atomlab.activations.store import INDEX, shard_name, write_json, write_tensors
from atomlab.activations.sequences import Sequences


@dataclass(frozen=True)
class Shard:
    """A file to write: consecutive batches of consecutive sequences, [start, stop) each."""

    name: str
    split: str
    batches: tuple[tuple[int, int], ...]


def plan(split: str, sequences: Sequences, shard_rows: int, batch_tokens: int) -> list[Shard]:
    """Batches of at most `batch_tokens` tokens with padding, and shards of at least `shard_rows` rows but the last; depends on its arguments only."""
    lengths, rows = sequences.lengths.tolist(), sequences.rows_per_sequence().tolist()
    batches: list[tuple[int, int]] = []
    start = longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > start and (i + 1 - start) * longest > batch_tokens:
            batches.append((start, i))
            start, longest = i, length
    batches.append((start, len(lengths)))
    shards: list[Shard] = []
    pending: list[tuple[int, int]] = []
    filled = 0
    for batch in batches:
        pending.append(batch)
        filled += sum(rows[slice(*batch)])
        if filled >= shard_rows or batch is batches[-1]:
            shards.append(Shard(shard_name(split, len(shards)), split, tuple(pending)))
            pending, filled = [], 0
    return shards


def harvest(
    model: LanguageModel,
    points: Sequence[HookPoint],
    sequences: dict[str, Sequences],
    folder: Path,
    *,
    shard_rows: int,
    batch_tokens: int,
) -> None:
    """Writes what is missing of the hook points' activations; an interrupted harvest goes on where it was.

    Raises:
        ValueError: activations that are not finite.
        OSError: the disk; complete shards stay.
    """
    missing = [point for point in points if not (folder / str(point) / INDEX).exists()]
    if not missing:
        return
    shards = [shard for split, s in sequences.items() for shard in plan(split, s, shard_rows, batch_tokens)]
    depths = [point.num_layers for point in missing]
    loaded: nn.Module | None = None
    with tqdm(total=sum(s.rows for s in sequences.values()), unit=" tokens", unit_scale=True, desc="harvest") as bar:
        for shard in shards:
            wanted = [point for point in missing if not (folder / str(point) / shard.name).exists()]
            if wanted and loaded is None:
                loaded = model.load(None if None in depths else max(depth for depth in depths if depth is not None))
            if wanted:
                assert loaded is not None
                _write_shard(loaded, model.device, wanted, shard, sequences[shard.split], folder, bar)
            else:
                bar.update(
                    int(sequences[shard.split].rows_per_sequence()[shard.batches[0][0] : shard.batches[-1][1]].sum())
                )
    for point in missing:
        files = [folder / str(point) / shard.name for shard in shards]
        index = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files}
        write_json(folder / str(point) / INDEX, {"hook_point": str(point), "shards": index})


def _write_shard(
    model: nn.Module,
    device: torch.device,
    points: list[HookPoint],
    shard: Shard,
    sequences: Sequences,
    folder: Path,
    bar: tqdm,
) -> None:
    rows: dict[HookPoint, list[Tensor]] = {point: [] for point in points}
    for input_ids, mask, position, keep in _batches(shard, sequences):
        inputs = {"input_ids": input_ids.to(device)} | ({} if mask.all() else {"attention_mask": mask.to(device)})
        if position.max() + 1 < position.shape[1] or (position.diff(dim=1) < 0).any():
            inputs["position_ids"] = position.to(device)
        for point, activations in capture(model, points, inputs).items():
            rows[point].append(activations[keep.to(device)].cpu())
        bar.update(int(keep.sum()))
    for point in points:
        activations = torch.cat(rows[point])
        if not activations.isfinite().all():
            raise ValueError(
                f"The model gives NaN or infinite activations at {point}: try model.dtype=bfloat16 or float32."
            )
        write_tensors(folder / str(point) / shard.name, {"activations": activations})


def _batches(shard: Shard, sequences: Sequences) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """input_ids, attention mask and kept positions, each (batch, longest), padded on the right."""
    for start, stop in shard.batches:
        lengths = sequences.lengths[start:stop]
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        span = slice(int(sequences.offsets[start]), int(sequences.offsets[stop]))
        input_ids = torch.zeros(mask.shape, dtype=torch.int64)
        keep = torch.zeros(mask.shape, dtype=torch.bool)
        position = torch.arange(mask.shape[1]).repeat(len(mask), 1)
        input_ids[mask], keep[mask] = sequences.input_ids[span].long(), sequences.keep[span]
        position[mask] = sequences.position[span].long()
        yield input_ids, mask, position, keep


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
