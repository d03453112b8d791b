"""One split of a dataset in the format of Hugging Face: what identifies it, and its records."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any, final

from atomlab.activations.corpora.records import RECORD_SUFFIXES, DataFiles, Record, read_records, saved_dataset_files
from atomlab.files import regular

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")  # and no expression of `datasets` such as train[:7]
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` writes for one split, and for several


@final
class DatasetSplit:
    """One split of a dataset, in files of this machine or at one commit of the hub, identified before it is read.

    .jsonl, .json and .parquet files of this machine are read record by record, so that a broken record can be left out.
    All else is read by `datasets`, which stops at a broken record.

    Args:
        name: a dataset of the hub, a folder of data files, a data file, or a folder written by `save_to_disk`.
        subset: name of the dataset's configuration; None if it has only one.
        split: name of the split.
        revision: commit, tag or branch on the hub; None is the main branch.
        streaming: whether a dataset of the hub is read while it arrives; if not, it is downloaded first.

    Raises:
        FileNotFoundError: from every method: there is no such dataset, split or revision, or the hub does not answer.
        ValueError: from every method: a file is damaged, or not what its name says.
    """

    def __init__(self, name: str, subset: str | None, split: str, revision: str | None, *, streaming: bool) -> None:
        self.name, self.subset, self.split, self.revision, self.streaming = name, subset, split, revision, streaming
        self._path = Path(name).expanduser().resolve() if _exists(name) else None

    @property
    def identity(self) -> Any:
        """Names and digests of the files (`DataFiles.identity`), or the name on the hub and the commit."""
        return {"name": self.name, "commit": self.commit} if self._path is None else self._files.identity

    def check_unchanged(self) -> None:
        """Raises ValueError if a file of this machine no longer has the content that `identity` states."""
        if self._path is not None:
            self._files.check_unchanged()

    @cached_property
    def commit(self) -> str:
        """The commit of the hub that is read. The hub is asked once what `revision` means.

        Where the hub does not answer, the commit that this machine saw last under that revision is taken.
        """
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import (
            HFValidationError,
            RemoteEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self.revision
        card = partial(hf_hub_download, self.name, "README.md", repo_type="dataset", revision=self.revision)
        try:
            commit = Path(card()).parent.name
        except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise _one_sentence_error(self.name, error) from error
        except RemoteEntryNotFoundError:  # the dataset has no card
            commit = str(HfApi().dataset_info(self.name, revision=self.revision).sha)
        except Exception as error:  # the hub was not reached, for whatever reason: this machine may know the commit
            try:
                commit = Path(card(local_files_only=True)).parent.name
            except Exception:
                raise FileNotFoundError(
                    f"The dataset {self.name!r} is no file or folder here, and the hub, which alone can say what it holds "
                    f"now, could not be reached: check its name and the network, or name a commit with "
                    f"corpus.revision=<commit>. ({_first_line(error)})"
                ) from error
        if not _COMMIT.fullmatch(commit):
            raise FileNotFoundError(
                f"The hub does not say which commit of {self.name!r} it has: name one with corpus.revision=<commit>."
            )
        return commit

    def records(self, rank: int, world_size: int) -> Iterator[Record]:
        """Reads the records of one process.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes. No two of them get the same record.

        Returns:
            Iterator over the process's records, each with its location. One that cannot be parsed carries the reason if
            the file is read record by record; where `datasets` reads, it ends the iteration with an error.
        """
        assert self.identity is not None  # identified before it is read
        if self._path is not None and not self._is_saved and _is_read_here(self._files.files, self.split):
            return islice(self._files.records(read_records), rank, None, world_size)
        return self._records_by_datasets(rank, world_size)

    def _records_by_datasets(self, rank: int, world_size: int) -> Iterator[Record]:
        from datasets.distributed import split_dataset_by_node

        share = f" of share {rank + 1} of {world_size}" if world_size > 1 else ""
        load = self._saved_split() if self._is_saved else self._built_split()
        with _one_sentence_errors(self.name):
            part: Any = split_dataset_by_node(load().with_format(None), rank=rank, world_size=world_size)
            for number, fields in enumerate(part, 1):
                yield Record(f"record {number}{share}", fields)

    def _saved_split(self) -> Callable[[], Any]:
        from datasets import load_from_disk

        return partial(load_from_disk, str(self._saved_folder))

    def _built_split(self) -> Callable[[], Any]:
        builder, here = self._builder, self._path is not None
        # Files of this machine are streamed, because their copy in the cache of `datasets` may be older than they are.
        if _SPLIT_NAME.fullmatch(self.split) if here else self.streaming:
            return partial(builder.as_streaming_dataset, split=self.split)

        def mapped() -> Any:
            builder.download_and_prepare()
            return builder.as_dataset(split=self.split)

        return mapped

    @property
    def _is_saved(self) -> bool:
        """Whether the dataset is a folder that `save_to_disk` wrote."""
        return self._path is not None and any((self._path / name).exists() for name in _SAVED)

    @cached_property
    def _files(self) -> DataFiles:
        """All files of this machine that are read, in the order of reading."""
        assert self._path is not None
        if not self._path.is_dir():
            if _is_read_here([self._path], self.split) and self.split != "train":
                raise FileNotFoundError(
                    f"{self.name} is one file, so that its only split is train, not {self.split}: give corpus.split=train."
                )
            return DataFiles(self._path, [regular(self._path)])
        for entry in self._path.rglob("*"):  # a pipe among them would keep a reader waiting for ever
            if entry.exists() and not entry.is_dir():
                regular(entry)
        files = saved_dataset_files(self._saved_folder) if self._is_saved else self._files_of_split()
        if not _is_read_here(files, self.split):
            cards = (self._path / name for name in ("README.md", ".huggingface.yaml"))
            files += [card for card in cards if card.exists()]
        return DataFiles(self._path, files)

    def _files_of_split(self) -> list[Path]:
        of_splits = {str(split): list(map(Path, files)) for split, files in self._builder.config.data_files.items()}
        if self.split in of_splits:
            return of_splits[self.split]
        if _SPLIT_NAME.fullmatch(self.split):
            raise FileNotFoundError(
                f"{self.name} has no split {self.split!r} but {', '.join(of_splits)}: give one of these as corpus.split."
            )
        return [file for files in of_splits.values() for file in files]  # an expression of `datasets` may read any

    @property
    def _saved_folder(self) -> Path:
        assert self._path is not None
        if not (self._path / "dataset_dict.json").exists():
            return self._path
        if not (self._path / self.split / "state.json").exists():
            raise FileNotFoundError(
                f"{self.name} has no split {self.split!r}: give one that its dataset_dict.json names as corpus.split."
            )
        return self._path / self.split

    @cached_property
    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        with _one_sentence_errors(self.name):
            if self._path is None:
                builder = load_dataset_builder(self.name, self.subset, revision=self.commit)
            elif self._path.is_file():
                data_files = [escape(self._path.name)]
                return load_dataset_builder(str(self._path.parent), self.subset, data_files=data_files)
            else:
                return load_dataset_builder(str(self._path), self.subset)
        if builder.hash != self.commit:
            raise FileNotFoundError(
                f"The hub could not be reached, and this machine has another commit of {self.name!r} than {self.commit}: "
                f"read it once with a network, or name a commit that is here with corpus.revision=<commit>."
            )
        return builder


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError):  # the name cannot be a path
        return False


def _is_read_here(files: list[Path], split: str) -> bool:
    """Whether records.py reads the files; `datasets` reads other files, and splits that are expressions."""
    return _SPLIT_NAME.fullmatch(split) is not None and all(file.suffix in RECORD_SUFFIXES for file in files)


@contextmanager
def _one_sentence_errors(name: str) -> Iterator[None]:
    """Turns whatever `datasets` and the libraries below it raise into one sentence."""
    try:
        yield
    except Exception as error:
        raise _one_sentence_error(name, error) from error


def _one_sentence_error(name: str, error: Exception) -> Exception:
    """An error that says whether the network, the name of the dataset or a file is at fault."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    causes, reason = _causes(error), f" ({_first_line(error)})"
    if any("Dataset scripts are no longer supported" in str(cause) for cause in causes):
        return ValueError(
            f"The dataset {name!r} is made by a script, which `datasets` runs no more: take the hub's own Parquet copy with "
            f"corpus.revision=refs/convert/parquet, or convert it to .jsonl or .parquet.{reason}"
        )
    if any("BuilderConfig" in str(cause) for cause in causes):
        return ValueError(
            f"The dataset {name!r} has no subset of that name: give corpus.subset=null, which files of this machine need, "
            f"or one of its own.{reason}"
        )
    missing = (DatasetNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError)
    if any(isinstance(cause, missing) for cause in causes):
        return FileNotFoundError(
            f"There is no dataset {name!r} of that revision on the hub, or you may not see it: check corpus.name and "
            f"corpus.revision, log in with `hf auth login` if it is gated, or use corpus=local.{reason}"
        )
    if any(isinstance(cause, ConnectionError | TimeoutError) or _is_network_error(cause) for cause in causes):
        return FileNotFoundError(
            f"The dataset {name!r} could not be read because the hub could not be reached: check the network, or use "
            f"corpus=local.{reason}"
        )
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"The dataset {name!r} lacks a file: check corpus.name, or copy it again.{reason}")
    return ValueError(
        f"The dataset {name!r} cannot be read: one of its files is damaged or not what its name says, or corpus.subset or "
        f"corpus.split is none of its own.{reason}"
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error, its cause, and so on."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _is_network_error(error: BaseException) -> bool:
    return any(kind.__module__.startswith(("httpx", "httpcore", "aiohttp", "requests")) for kind in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
