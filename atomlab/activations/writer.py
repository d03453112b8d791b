"""A background thread that writes what the model computes, while the model goes on computing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.plan import Shard
from atomlab.activations.sites import HookPoint
from atomlab.activations.store import write_tensors

_AHEAD = 4  # batches that wait for the writer; the model waits when there are more


@final
class ShardWriter:
    """Collects the batches of a shard and writes it for each hook point; `close` waits for the rest.

    Args:
        folder: of the harvest.
        written: told the name of a file, seen from the folder, and its record.
    """

    def __init__(self, folder: Path, written: Callable[[str, dict[str, Any]], None]) -> None:
        self._folder, self._written = folder, written
        self._queue: Queue[tuple[Shard, Mapping[HookPoint, Tensor]] | None] = Queue(maxsize=_AHEAD)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="shard writer", daemon=True)
        self._thread.start()

    def put(self, shard: Shard, rows: Mapping[HookPoint, Tensor]) -> None:
        """The next rows of a shard at each hook point, on any device; shards come one after the other.

        Raises:
            OSError, ValueError: what happened to an earlier one.
        """
        self._queue.put((shard, rows))
        self._raise()

    def close(self) -> None:
        """Waits until all is written; raises as `put`."""
        self._queue.put(None)
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
        if not norms.isfinite().all():
            raise ValueError(
                f"The model gives NaN or infinite activations at {point}: try model.dtype=bfloat16 or float32."
            )
        name = f"{point}/{shard.name}"
        record = write_tensors(self._folder / name, {"activations": activations, "norms": norms})
        self._written(name, {"rows": shard.rows} | record)
