"""The harvests of one model in a cache folder: named by all that determines them, made when they are missing."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

from lightning.pytorch import Trainer

from atomlab.activations.corpus import Corpus
from atomlab.activations.harvest import harvest, is_complete
from atomlab.activations.language_model import LanguageModel
from atomlab.activations.moments import Moments, moments
from atomlab.activations.reading import ActivationStore, Rows
from atomlab.activations.remote import fetch
from atomlab.activations.sites import HookPoint
from atomlab.activations.store import LOCK, Unwritable, store_key
from atomlab.activations.tokens import SPLITS, Tokens, tokenise

_CLIENTS = {"aiohttp", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3"}


@contextmanager
def _reached(what: str) -> Iterator[None]:
    """Says of a fault of the network what was being fetched; all other errors pass."""
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
class Harvests:
    """Harvests of one model, made under one set of rules.

    Args:
        model: the language model.
        cache_dir: where they are kept, one folder each.
        tokenising: keyword arguments of `tokenise`.
        harvesting: keyword arguments of `harvest`: shard_rows, batch_tokens, precision.
        source: an fsspec URL of another cache folder that is looked into before anything is harvested.
    """

    def __init__(
        self,
        model: LanguageModel,
        cache_dir: Path,
        tokenising: dict[str, Any],
        harvesting: dict[str, Any],
        source: str | None = None,
    ) -> None:
        self.model, self.cache_dir, self.source = model, cache_dir, source
        self.tokenising, self.harvesting = tokenising, harvesting

    def description(self, corpus: Corpus) -> dict[str, Any]:
        """All that determines a harvest of the corpus, JSON-serialisable; its digest names the folder."""
        return {
            "model": self.model.fingerprint,
            "corpus": corpus.fingerprint,
            "position": corpus.position,
            "tokens": self.tokenising,
            "harvest": self.harvesting,
        }

    def folder(self, corpus: Corpus) -> Path:
        return self.cache_dir / "activations" / store_key(self.description(corpus))

    def _index(self, corpus: Corpus) -> dict[str, Any]:
        """What the index of each hook point says of its origin."""
        model = {"name": self.model.title, "revision": self.model.revision}
        return model | {"tokenizer": self.model.tokenizer_fingerprint} | self.description(corpus)

    def ensure(self, corpus: Corpus, points: Sequence[HookPoint], trainer: Trainer | None = None) -> None:
        """Fetches or harvests what the cache lacks (`harvest`, `fetch`).

        Raises:
            OSError: the cache folder is full or cannot be written; the network.
            ValueError: a fault of the corpus, the model or the source.
        """
        folder = self.folder(corpus)
        try:
            if self.source is not None and not is_complete(folder, points):
                fetch(f"{self.source}/activations/{folder.name}", folder, points)
            with _reached(f"The model {self.model.title}"):
                harvest(
                    self.model,
                    points,
                    partial(self._tokenise, corpus),
                    folder,
                    partial(self._index, corpus),
                    trainer=trainer,
                    **self.harvesting,
                )
        except Unwritable as error:
            raise OSError(
                f"cache_dir={self.cache_dir} could not be written ({error}): give a folder with space and write access."
            ) from error

    def _tokenise(self, corpus: Corpus) -> Tokens:
        with _reached(f"The {type(corpus).__name__} corpus"):
            return tokenise(corpus, self.model.tokenizer, **self.tokenising)

    def open(
        self, corpus: Corpus, point: HookPoint, max_norm_ratio: float | None, verify: bool
    ) -> tuple[dict[str, Rows], Moments]:
        """The rows of each split without outliers, and the moments of the training rows.

        Args:
            corpus: whose harvest.
            point: where in the model.
            max_norm_ratio: rows whose norm is above this many times the training rows' median are left out (None:
                none).
            verify: compare every byte with its checksum, about 1.5 GB/s and core.

        Raises:
            FileNotFoundError, ValueError: as `ActivationStore`.
        """
        folder = self.folder(corpus) / str(point)
        stores = {split: ActivationStore(folder, split) for split in SPLITS}
        if verify:
            for store in stores.values():
                store.verify()
        median = float(stores["train"].norms.median())
        limit = float("inf") if max_norm_ratio is None else max_norm_ratio * median
        rows = {split: Rows(store, (store.norms <= limit).nonzero().squeeze(1)) for split, store in stores.items()}
        file = folder / f"moments-{max_norm_ratio}.safetensors"
        return rows, moments(rows["train"], file, self.folder(corpus) / LOCK)
