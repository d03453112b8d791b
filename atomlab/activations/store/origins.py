"""Where the rows of a store come from: the token, its position, its document, and the text around it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.store.files import (
    DamagedCacheError,
    read_index,
    read_json,
    read_tensors,
    write_index,
    write_json,
    write_tensors,
)
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import SPLITS, BadRecords, Tokens

TOKENS_INDEX = "tokens.json"
_GROUPS = "groups.json"
SEQUENCE_FILES = {_GROUPS, *(f"{split}.tokens.safetensors" for split in SPLITS)}


@dataclass(frozen=True)
class Origin:
    """Of each of some rows.

    Attributes:
        token_id: (rows,) int32, the token whose activation the row is.
        position: (rows,) int32, as the model counted it.
        document: (rows,) int32, the number of the example in the corpus.
        group: the example's group: document title, subject or template.
    """

    token_id: Tensor
    position: Tensor
    document: Tensor
    group: list[str]


@final
class Origins:
    """The token sequences behind the rows of one split, the same for every hook point of a harvest.

    Args:
        sequences: of the split.
        groups: of the corpus's examples, by their number.
    """

    def __init__(self, sequences: Sequences, groups: list[str]) -> None:
        self.sequences, self.groups = sequences, groups
        self._tokens = sequences.keep.nonzero().squeeze(1)
        starts = sequences.position == 0
        starts[sequences.offsets[:-1]] = True
        self._parts = torch.cat([starts.nonzero().squeeze(1), torch.tensor([len(starts)])])

    @classmethod
    def read(cls, folder: Path, split: str) -> "Origins":
        sequences, groups = read_sequences(folder, split), read_groups(folder)
        if (sequences.document >= len(groups)).any():
            raise DamagedCacheError(
                [folder / _GROUPS, folder / TOKENS_INDEX], "altered: it has fewer examples than the sequences name"
            )
        return cls(sequences, groups)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, rows: Tensor) -> Origin:
        """The origin of the rows with these numbers, an int64 tensor."""
        tokens = self._tokens[rows]
        document = self.sequences.document[tokens]
        groups = [self.groups[number] for number in document.tolist()]
        return Origin(self.sequences.input_ids[tokens], self.sequences.position[tokens], document, groups)

    @property
    def all_groups(self) -> set[str]:
        """The groups of all tokens of the split, also of those that are not kept."""
        return {self.groups[number] for number in self.sequences.document.unique().tolist()}

    def contexts(self, rows: Tensor, before: int = 32, after: int = 8) -> list[tuple[Tensor, int]]:
        """The token ids that the model saw around each row, at most `before` and `after` of them, and the place of
        the row's own among these.

        Tokens of another context, or of a document that the row's did not see, are not part of it.
        """
        tokens = self._tokens[rows]
        part = torch.searchsorted(self._parts, tokens, right=True)
        first = torch.maximum(tokens - before, self._parts[part - 1])
        last = torch.minimum(tokens + after + 1, self._parts[part])
        ids = self.sequences.input_ids
        return [
            (ids[start:stop], own - start)
            for start, stop, own in zip(first.tolist(), last.tolist(), tokens.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Layout:
    """The sizes that a harvest was begun with, which say where its files and forward passes end.

    Attributes:
        shard_rows: rows that a file has at least, but for the last of a split.
        batch_tokens: tokens that a forward pass has at most, unless one sequence has more.
    """

    shard_rows: int
    batch_tokens: int


def write_sequences(folder: Path, tokens: Tokens, layout: Layout) -> None:
    """A file a split and the groups, and last `tokens.json` with their checksums, what was left out, and the layout."""
    records = {
        name: write_tensors(folder / name, sequences.tensors())
        for name, sequences in ((_file(split), sequences) for split, sequences in tokens.splits.items())
    }
    records[_GROUPS] = write_json(folder / _GROUPS, tokens.groups)
    counted = {"tokens": sum(len(s.keep) for s in tokens.splits.values()), "layout": vars(layout)}
    write_index(folder / TOKENS_INDEX, counted | {"bad_records": asdict(tokens.bad_records), "files": records})


def read_layout(folder: Path) -> Layout:
    """What `write_sequences` was given: files of a harvest that goes on are cut as those that are there already."""
    return Layout(**_stated(folder / TOKENS_INDEX)["layout"])


def read_bad_records(folder: Path) -> BadRecords:
    """Which of the corpus's records a harvest left out."""
    found = _stated(folder / TOKENS_INDEX)["bad_records"]
    return BadRecords(found["count"], found["read"], tuple(found["first"]))


def has_sequences(folder: Path) -> bool:
    """Whether `tokens.json` and all the files that it names are there."""
    return (folder / TOKENS_INDEX).exists() and all(
        (folder / name).exists() for name in read_records(folder / TOKENS_INDEX)
    )


def read_records(index: Path) -> dict[str, dict[str, Any]]:
    """What `tokens.json` states of each file, which are always the same ones. Raises ValueError as `read_index`."""
    return _stated(index)["files"]


def _stated(index: Path) -> dict[str, Any]:
    """`tokens.json`, of which nothing is trusted before it was looked at."""
    found = read_index(index, "files")
    if set(found["files"]) != SEQUENCE_FILES:
        raise DamagedCacheError([index], f"altered: it should name {', '.join(sorted(SEQUENCE_FILES))}")
    if not _are_counts(found.get("layout"), ("shard_rows", "batch_tokens"), 1):
        raise DamagedCacheError([index], "altered: it states no sizes of files and passes")
    bad = dict(found["bad_records"]) if isinstance(found.get("bad_records"), dict) else {}
    if not (isinstance(bad.pop("first", None), list) and _are_counts(bad, ("count", "read"), 0)):
        raise DamagedCacheError([index], "altered: it does not state which records were left out")
    return found


def _are_counts(value: Any, names: Iterable[str], least: int) -> bool:
    """Whether it is a mapping of just these names to whole numbers of at least `least`."""
    return (
        isinstance(value, dict)
        and set(value) == set(names)
        and all(type(number) is int and number >= least for number in value.values())
    )


def read_sequences(folder: Path, split: str) -> Sequences:
    """Raises ValueError if these are no token sequences; the message says how to rebuild them."""
    file = folder / _file(split)
    tensors = read_tensors(file)
    if not _are_sequences(tensors):
        raise DamagedCacheError([file, folder / TOKENS_INDEX], "altered: these are no token sequences")
    return Sequences(**tensors)


def read_groups(folder: Path) -> list[str]:
    """Raises ValueError if they are no list of names; the message says how to rebuild them."""
    groups = read_json(folder / _GROUPS)
    if not (isinstance(groups, list) and all(isinstance(group, str) for group in groups)):
        raise DamagedCacheError([folder / _GROUPS, folder / TOKENS_INDEX], "altered: it is no list of names")
    return groups


def _are_sequences(tensors: dict[str, Tensor]) -> bool:
    """Whether they have the names, dtypes and shapes of `Sequences`, rising offsets and no negative number."""
    integers = {"input_ids": torch.int32, "position": torch.int32, "document": torch.int32}
    dtypes = {**integers, "offsets": torch.int64, "keep": torch.bool}
    if {name: tensor.dtype for name, tensor in tensors.items()} != dtypes:
        return False
    offsets, tokens = tensors["offsets"], len(tensors["keep"]) if tensors["keep"].ndim else -1
    return (
        all(tensors[name].shape == (tokens,) for name in ("keep", *integers))
        and offsets.ndim == 1
        and len(offsets) > 0
        and (int(offsets[0]), int(offsets[-1])) == (0, tokens)
        and bool((offsets.diff() > 0).all())
        and all(bool((tensors[name] >= 0).all()) for name in integers)
    )


def _file(split: str) -> str:
    return f"{split}.tokens.safetensors"
