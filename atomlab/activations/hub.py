"""Datasets in the format of Hugging Face: of the hub, or of this machine."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, final

from atomlab.activations.corpus import Example, Position, document


@final
class HubText:
    """A dataset of texts or of token ids, split by document.

    Args:
        name: a dataset of the hub, a folder of data files, or a folder written by `save_to_disk`.
        subset: its configuration, if it has several.
        split: its split.
        revision: commit, tag or branch.
        field: of the text, or of token ids (`input_ids`).
        group_field: of what a held-out split must not tear apart (None: each text for itself, its copies included).
        streaming: read while it arrives, or download first and map into memory.
        limit: documents harvested (the sample is drawn from these); a stream reads on.

    Raises:
        FileNotFoundError: no such dataset, or no hub.
        ValueError: records without `field`.
    """

    packed = True
    position: Position = "all"

    def __init__(
        self,
        name: str,
        *,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        field: str = "text",
        group_field: str | None = None,
        streaming: bool = True,
        limit: int | None = 20_000,
    ) -> None:
        self.name, self.subset, self.split, self.revision = name, subset, split, revision
        self.field, self.group_field, self.streaming, self.limit = field, group_field, streaming, limit

    @property
    def fingerprint(self) -> dict[str, Any]:
        rules = ("subset", "split", "revision", "field", "group_field", "limit")
        return {"hub": self.name} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        return islice(self.stream(0, 1), self.limit)

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        from datasets.distributed import split_dataset_by_node

        whole = load(self.name, self.subset, self.split, self.revision, self.streaming)
        part: Any = split_dataset_by_node(whole, rank=rank, world_size=world_size)
        return (document(record, self.field, self.group_field, self.name) for record in part)


def load(name: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    """A split of a dataset, `Dataset` or `IterableDataset`; raises FileNotFoundError in one sentence if it cannot be had."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        if (Path(name) / "state.json").exists() or (Path(name) / "dataset_dict.json").exists():
            saved = load_from_disk(name)
            return saved[split] if isinstance(saved, DatasetDict) else saved
        return load_dataset(name, subset, split=split, revision=revision, streaming=streaming)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"The dataset {name!r} could not be read from the hub; check its name, or use corpus=local. ({reason})"
        ) from error
