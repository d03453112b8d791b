"""Says where each row of a store comes from: its token, position, document and group, and the text around it.

The token sequences of a harvest, which the rows of all its hook points share, are written and read here.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.store.files import (
    DamagedCacheError,
    FileEntry,
    read_index,
    read_json,
    read_tensors,
    write_index,
    write_json,
    write_tensors,
)
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import SPLITS, BadRecords, Tokens

TOKENS_INDEX = "tokens.json"  # the index of the token sequences
_GROUPS = "groups.json"
# All files that it names.
SEQUENCE_FILES = {_GROUPS, *(f"{split}.tokens.safetensors" for split in SPLITS)}


@dataclass(frozen=True)
class Origin:
    """Where some rows come from.

    Attributes:
        token_id: (rows,) int32, the token whose activation each row is.
        position: (rows,) int32, position of the token as the model counted it, from 0.
        document: (rows,) int32, number of the example in the corpus, from 0.
        group: group of the example of each row: a document's title, a subject or a template.
    """

    token_id: Tensor
    position: Tensor
    document: Tensor
    group: list[str]


@final
class Origins:
    """The origins of all rows of one split, which are the same at every hook point of a harvest.

    `origins[numbers]` gives the `Origin` of the rows with the given numbers.

    Args:
        sequences: token sequences of the split; its kept tokens are the rows, in order.
        groups: group of each example of the corpus, by its number.
    """

    def __init__(self, sequences: Sequences, groups: list[str]) -> None:
        self.sequences, self.groups = sequences, groups
        self._tokens = sequences.keep.nonzero().squeeze(1)
        starts = sequences.position == 0
        starts[sequences.offsets[:-1]] = True
        self._boundaries = torch.cat([starts.nonzero().squeeze(1), torch.tensor([len(starts)])])

    @classmethod
    def read(cls, folder: Path, split: str) -> "Origins":
        """Reads the origins of one split of a harvest.

        Args:
            folder: folder of the harvest.
            split: train, validation or test.

        Returns:
            The origins of all rows of the split.

        Raises:
            DamagedCacheError: the file of the token sequences is missing, or it or the file of the groups is altered.
            FileNotFoundError: the file of the groups is missing.
        """
        sequences, groups = read_sequences(folder, split), read_groups(folder)
        if (sequences.document >= len(groups)).any():
            raise DamagedCacheError(
                [folder / _GROUPS, folder / TOKENS_INDEX], "altered: it has fewer examples than the sequences name"
            )
        return cls(sequences, groups)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, rows: Tensor) -> Origin:
        """Returns where the rows with these numbers, (n,) int64, come from."""
        tokens = self._tokens[rows]
        document = self.sequences.document[tokens]
        groups = [self.groups[number] for number in document.tolist()]
        return Origin(self.sequences.input_ids[tokens], self.sequences.position[tokens], document, groups)

    def places(self, rows: Tensor) -> Tensor:
        """Returns the place of each row's token in `sequences`, (n,) int64."""
        return self._tokens[rows]

    @property
    def boundaries(self) -> Tensor:
        """Places in `sequences` at which a text starts that sees nothing of what is before it, rising, and the end of all."""
        return self._boundaries

    @property
    def all_groups(self) -> set[str]:
        """The groups of all tokens of the split, also of tokens that are not kept."""
        return {self.groups[number] for number in self.sequences.document.unique().tolist()}

    def contexts(self, rows: Tensor, before: int = 32, after: int = 8) -> list[tuple[Tensor, int]]:
        """Returns the token ids that the model saw around the token of each row.

        Tokens of other sequences, and of packed documents that are kept apart from the row's, are left out.

        Args:
            rows: (n,) int64, numbers of the rows.
            before: number of tokens before the row's own, at most.
            after: number of tokens after it, at most.

        Returns:
            For each row the token ids in reading order, int32, and the index of the row's own token among them.
        """
        tokens = self._tokens[rows]
        following = torch.searchsorted(self._boundaries, tokens, right=True)
        first = torch.maximum(tokens - before, self._boundaries[following - 1])
        last = torch.minimum(tokens + after + 1, self._boundaries[following])
        ids = self.sequences.input_ids
        return [
            (ids[start:stop], own - start)
            for start, stop, own in zip(first.tolist(), last.tolist(), tokens.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Layout:
    """The sizes by which a harvest is cut into files and forward passes.

    Attributes:
        shard_rows: number of rows of a file, at least; the last file of a split may have fewer.
        batch_tokens: number of tokens of a forward pass, at most; one sequence alone may have more.
    """

    shard_rows: int
    batch_tokens: int


def write_sequences(folder: Path, tokens: Tokens, layout: Layout) -> None:
    """Writes the tokenised corpus of a harvest.

    The last file is `tokens.json` with the checksums of the others, so that a folder with it is complete.

    Args:
        folder: folder of the harvest.
        tokens: token sequences of each split, groups of the examples, and the records that were left out.
        layout: sizes that the harvest is begun with.

    Raises:
        UnwritableCacheError: the disk is full or cannot be written.
    """
    entries = {
        name: write_tensors(folder / name, sequences.tensors())
        for name, sequences in ((_file(split), sequences) for split, sequences in tokens.splits.items())
    }
    entries[_GROUPS] = write_json(folder / _GROUPS, tokens.groups)
    counted = {"tokens": sum(len(s.keep) for s in tokens.splits.values()), "layout": vars(layout)}
    write_index(folder / TOKENS_INDEX, counted | {"bad_records": asdict(tokens.bad_records), "files": entries})


def read_layout(folder: Path) -> Layout:
    """Reads the sizes that a harvest was begun with, so that it goes on with files of the same sizes.

    Args:
        folder: folder of the harvest.

    Returns:
        The sizes that its `tokens.json` states.

    Raises:
        FileNotFoundError: there is no `tokens.json`.
        DamagedCacheError: it is altered.
    """
    return Layout(**_tokens_index(folder / TOKENS_INDEX)["layout"])


def read_bad_records(folder: Path) -> BadRecords:
    """Returns how many of the corpus's records a harvest left out. Args and Raises as `read_layout`."""
    found = _tokens_index(folder / TOKENS_INDEX)["bad_records"]
    return BadRecords(found["count"], found["read"], tuple(found["first"]))


def has_sequences(folder: Path) -> bool:
    """Checks whether the token sequences of a harvest are there. Sizes and checksums are not compared.

    Args:
        folder: folder of the harvest.

    Returns:
        Whether `tokens.json` and all files that it names exist.

    Raises:
        DamagedCacheError: `tokens.json` is altered.
    """
    return (folder / TOKENS_INDEX).exists() and all(
        (folder / name).exists() for name in read_sequence_entries(folder / TOKENS_INDEX)
    )


def read_sequence_entries(index: Path) -> dict[str, FileEntry]:
    """Reads what a `tokens.json` states of the files of token sequences.

    Args:
        index: path of the `tokens.json`.

    Returns:
        Size and checksum of each file by its name. The names are those of `SEQUENCE_FILES`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCacheError: it is altered.
    """
    return _tokens_index(index)["files"]


def _tokens_index(index: Path) -> dict[str, Any]:
    """The content of a `tokens.json`, after checking that it states all that it should."""
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
    """Whether a value is a mapping of just these names to whole numbers of at least `least`."""
    return (
        isinstance(value, dict)
        and set(value) == set(names)
        and all(type(number) is int and number >= least for number in value.values())
    )


def read_sequences(folder: Path, split: str) -> Sequences:
    """Reads the token sequences of one split of a harvest.

    Args:
        folder: folder of the harvest.
        split: train, validation or test.

    Returns:
        The sequences, memory-mapped.

    Raises:
        DamagedCacheError: the file is missing, or holds no token sequences.
    """
    file = folder / _file(split)
    tensors = read_tensors(file)
    if not _are_sequences(tensors):
        raise DamagedCacheError([file, folder / TOKENS_INDEX], "altered: these are no token sequences")
    return Sequences(**tensors)


def read_groups(folder: Path) -> list[str]:
    """Reads the groups of a corpus's examples.

    Args:
        folder: folder of the harvest.

    Returns:
        The group of each example; the example's number in the corpus is its index.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCacheError: it holds no list of names.
    """
    groups = read_json(folder / _GROUPS)
    if not (isinstance(groups, list) and all(isinstance(group, str) for group in groups)):
        raise DamagedCacheError([folder / _GROUPS, folder / TOKENS_INDEX], "altered: it is no list of names")
    return groups


def _are_sequences(tensors: dict[str, Tensor]) -> bool:
    """Whether tensors have names, dtypes and shapes of `Sequences`, rising offsets and no negative number."""
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
