"""The harvests of one model in a cache folder: named by all that determines them, made when they are missing."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

from filelock import FileLock
from lightning.pytorch import Trainer

from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.harvest.harvester import Harvester, harvest, is_complete
from atomlab.activations.harvest.preflight import (
    Prepared,
    Ranks,
    bytes_of_row,
    check_sequences,
    check_space,
    sample_ranks,
)
from atomlab.activations.harvest.remote import fetch
from atomlab.activations.model.capture import measure_widths
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import ActivationStore, FilesState, Rows
from atomlab.activations.store.files import (
    INDEX,
    LOCK,
    UnwritableCacheError,
    harvest_key,
    os_errors_as_unwritable,
    read_index,
)
from atomlab.activations.store.moments import Moments, stored_moments
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.store.row_origins import Layout, has_sequences, read_sequences
from atomlab.activations.tokens.tokenise import SPLITS, TokenRules, Tokens, tokenise
from atomlab.identity import check_same, code
from atomlab.ranges import Count, check_ranges

_CLIENTS = {"aiohttp", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3"}


@contextmanager
def _reached(what: str) -> Iterator[None]:
    """Names what was being fetched in the message of a network error; all other errors pass."""
    try:
        yield
    except Exception as error:
        faults = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
        of_client = type(error).__module__.partition(".")[0] in _CLIENTS
        if not isinstance(error, faults) and (not of_client or isinstance(error, FileNotFoundError)):
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise OSError(
            f"{what} could not be fetched over the network ({reason}): check the connection, or give a local copy."
        ) from error


@final
@dataclass(frozen=True)
class HarvestOptions:
    """How harvests are made, and where they are kept.

    Attributes:
        cache_dir: the folder of all harvests.
        precision: of the forward passes, as Lightning names it; "32-true" computes in the model's own dtype.
        batch_tokens: tokens of a forward pass, at most.
        shard_rows: vectors of a file, at least.
        source: an fsspec URL of another cache folder, which is looked into before anything is harvested; None for none.
        verify: whether every byte of a harvest is compared with its checksum before it is used, about 1.5 GB/s and core.

    Raises:
        ValueError: a size below 1.
    """

    cache_dir: str
    precision: str = "32-true"
    batch_tokens: Count = 8192
    shard_rows: Count = 16_384
    source: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        check_ranges("activations.harvest", self)


@final
class HarvestCache:
    """The harvests of one model, made under one set of rules.

    Args:
        model: the language model.
        rules: of the tokens. Documents are kept apart only if the model can do this.
        options: how harvests are made, and where they are kept.
    """

    def __init__(self, model: LanguageModel, rules: TokenRules, options: HarvestOptions) -> None:
        self.model, self.options, self._asked = model, options, rules
        self.cache_dir = Path(options.cache_dir).expanduser()
        self.layout = Layout(options.shard_rows, options.batch_tokens)
        self._verified = set[FilesState]()  # of the files that were compared with checksums

    @cached_property
    def rules(self) -> TokenRules:
        """The rules that hold for this model. They are read when they are needed first, since that asks for the model."""
        apart = self._asked.separate_documents and self.model.separates_documents
        return replace(self._asked, separate_documents=apart)

    def description(self, corpus: Corpus) -> dict[str, Any]:
        """Returns all that determines a harvest of the corpus, as plain JSON. Its digest names the folder."""
        rules = self.rules
        return {
            "model": self.model.fingerprint,
            "corpus": corpus.fingerprint,
            "position": corpus.position,
            "tokens": {
                "context": rules.context,
                "fractions": list(rules.fractions),
                "max_rows": rules.max_tokens,
                "seed": rules.seed,
                "drop_first": rules.drop_first,
                "drop_special": rules.drop_special,
                "apart": rules.separate_documents,
            },
            "precision": self.options.precision,
        }

    def folder(self, corpus: Corpus) -> Path:
        """Returns the folder of a corpus's harvest, `<cache_dir>/activations/<key>`, which need not exist yet."""
        return self.cache_dir / "activations" / harvest_key(self.description(corpus))

    def _index(self, corpus: Corpus) -> dict[str, Any]:
        """Returns what the index of each hook point says of its origin."""
        model = {
            "name": self.model.title,
            "revision": self.model.revision,
            "device": str(self.model.device),
            "code": code(),
        }
        return model | {"tokenizer": self.model.tokenizer_fingerprint} | self.description(corpus)

    def prepare(self, corpora: Sequence[Corpus], points: Sequence[HookPoint]) -> Prepared:
        """Finds out everything that can be known of the harvests before the first pass. Nothing is written.

        Args:
            corpora: whose activations are wanted.
            points: hook points, the first of which is trained on.

        Returns:
            Rows, tokens, sizes and ranks of what is there or would be harvested.

        Raises:
            FileNotFoundError, ValueError: a fault of a corpus, the tokenizer, the model or a hook point.
            OSError: the disk has no room for what is missing.

        Cost: if anything is missing, the corpora are tokenised, and the model is loaded and reads two short batches.
        """
        return self._prepare({self.folder(corpus): corpus for corpus in corpora}, points)[0]

    def ensure(
        self,
        corpora: Sequence[Corpus],
        points: Sequence[HookPoint],
        trainer: Trainer | None = None,
        check: Callable[[Prepared], object] | None = None,
    ) -> None:
        """Fetches what the cache lacks from the source, if there is one, and then checks and harvests what is still missing.

        Of several runs that want the same harvest, one works and the others wait. Every process of `trainer` calls this; the
        first one prepares.

        Args:
            corpora: whose activations are wanted.
            points: hook points, the first of which is trained on.
            trainer: its processes share the work, if it has several; None works in this process alone.
            check: is given what was prepared, before anything is harvested, and raises what it finds wrong.

        Raises:
            OSError: the cache folder is full or cannot be written, or the network failed.
            ValueError: a fault of the corpus, the model or the source.
        """
        folders = {self.folder(corpus): corpus for corpus in corpora}
        with self._writing():
            self._ensure(folders, points, trainer, check)

    def _ensure(
        self,
        folders: Mapping[Path, Corpus],
        points: Sequence[HookPoint],
        trainer: Trainer | None,
        check: Callable[[Prepared], object] | None,
    ) -> None:
        if self.options.source is not None:
            for folder in folders:
                if not is_complete(folder, points):
                    fetch(f"{self.options.source}/activations/{folder.name}", folder, points)
        alone = trainer is None or trainer.world_size == 1
        first = trainer is None or trainer.is_global_zero
        with ExitStack() as held:
            if first:
                self._lock([folder for folder in sorted(folders) if not is_complete(folder, points)], held)
            prepared, tokens = self._prepare(folders, points) if first else (None, {})
            if prepared is not None and check is not None:
                check(prepared)
            loaded = None if prepared is None else prepared.loaded
            for folder, corpus in folders.items():
                if not (alone and is_complete(folder, points)):
                    index, layout = partial(self._index, corpus), self.layout
                    work = Harvester(self.model, points, tokens.get(folder), folder, index, layout, loaded)
                    harvest(work, self.options.precision, trainer)

    def _prepare(
        self, folders: Mapping[Path, Corpus], points: Sequence[HookPoint]
    ) -> tuple[Prepared, dict[Path, Tokens]]:
        """Prepares as `prepare` does; returns also the tokens of the corpora that had not been tokenised before."""
        missing = [folder for folder in folders if not is_complete(folder, points)]
        rows: dict[Path, dict[str, int]] = {}
        tokens: dict[Path, Tokens] = {}
        ranks: dict[Path, Ranks] = {}
        needed, to_read = 0, dict.fromkeys(folders, 0)
        for folder in missing:
            if not has_sequences(folder):
                tokens[folder] = self._tokenise(folders[folder])
        with _reached(f"The model {self.model.title}"):
            loaded = self.model.load(points) if missing else None
        if loaded is not None:
            widths = measure_widths(loaded, points, self.model.config.get_text_config().vocab_size)
        else:
            folder = next(iter(folders))
            widths = {point: read_index(folder / str(point) / INDEX, "shards")["width"] for point in points}
        for folder in folders:
            if loaded is None or folder not in missing:  # the index knows, and token sequences may be large
                rows[folder] = read_index(folder / str(points[0]) / INDEX, "shards")["rows"]
            else:
                splits = tokens[folder].splits if folder in tokens else {s: read_sequences(folder, s) for s in SPLITS}
                rows[folder] = {split: sequences.rows for split, sequences in splits.items()}
                check_sequences(splits, points, self.model, loaded)
                own = sample_ranks(splits["train"], points[0], loaded, widths[points[0]], self.layout.batch_tokens)
                ranks |= {} if own is None else {folder: own}
                lacking = [point for point in points if not (folder / str(point) / INDEX).exists()]
                every = sum(bytes_of_row(widths[point], self.model.dtype) for point in lacking)
                needed += every * sum(rows[folder].values())
                to_read[folder] = sum(len(sequences.input_ids) for sequences in splits.values())
        check_space(self.cache_dir, needed)
        return Prepared(rows, to_read, needed, widths, ranks, loaded), tokens

    def _lock(self, folders: Sequence[Path], held: ExitStack) -> None:
        """Waits for the lock of each folder. A folder in which nothing was written is removed when its lock is given back."""
        for folder in folders:
            with os_errors_as_unwritable(folder):
                folder.mkdir(parents=True, exist_ok=True)
                held.callback(_remove_if_empty, folder)
                held.enter_context(FileLock(folder / LOCK))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except UnwritableCacheError as error:
            raise OSError(
                f"cache_dir={self.cache_dir} could not be written ({error}): give a folder with space and write access."
            ) from error

    def _tokenise(self, corpus: Corpus) -> Tokens:
        with _reached(f"The {type(corpus).__name__} corpus"):
            return tokenise(corpus, self.model.tokenizer, self.rules)

    def open(self, corpus: Corpus, point: HookPoint, outliers: Outliers) -> tuple[dict[str, Rows], Moments]:
        """Opens a harvest.

        Args:
            corpus: whose activations.
            point: the hook point.
            outliers: which rows are left out.

        Returns:
            The rows of each split without outliers, memory-mapped, and the moments of the training rows.

        Raises:
            FileNotFoundError, ValueError: the harvest is missing or damaged, as `ActivationStore` says, or its index says that
                it is another harvest.
        """
        folder = self.folder(corpus) / str(point)
        asked, found = json.loads(json.dumps(self.description(corpus))), read_index(folder / INDEX, "shards")
        check_same(
            asked,
            {name: found.get(name) for name in asked},
            what=f"The harvest in {folder.parent}",
            remedy="its folder has another one's name: move it away",
        )
        stores = {split: ActivationStore(folder, split) for split in SPLITS}
        if self.options.verify:
            for store in stores.values():
                self._verify(store)
        limit = outliers.limit(stores["train"].norms)
        rows = {split: Rows(store, (store.norms <= limit).nonzero().squeeze(1)) for split, store in stores.items()}
        file = folder / f"moments-{outliers.max_norm_ratio}.safetensors"
        return rows, stored_moments(rows["train"], file, self.folder(corpus) / LOCK)

    def _verify(self, store: ActivationStore) -> None:
        """Compares every byte with its checksum, unless that was done before with the files as they are now."""
        state = store.state
        if state not in self._verified:
            store.verify()
            self._verified.add(state)


def _remove_if_empty(folder: Path) -> None:
    """Removes the folder of a harvest in which there is nothing but its lock."""
    if [entry.name for entry in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()
