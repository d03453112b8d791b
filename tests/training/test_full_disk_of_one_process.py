"""A disk that one of two processes cannot write to costs the run a checkpoint: both go on and know the same of it."""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from atomlab import load_sae
from atomlab.groups import Groups
from atomlab.interop import sharded_checkpoint, sharded_record
from atomlab.interop.checkpoint import read_checkpoint
from atomlab.interop.export import shards
from atomlab.interop.export.shards import save_shared_sae
from atomlab.training import checkpoint_io, last_checkpoint
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from tests.training.shards import fit, module, strategy, whole
from tests.training.together import free_port, together

STEPS, EVERY = 15, 5
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
Where = tuple[Any, str, Callable[..., bool]]  # the owner and the name of a function, and which of its calls fail
WHERE: dict[str, Where] = {
    "write": (checkpoint_io, "write_checkpoint_file", lambda *_: True),
    "in place": (last_checkpoint, "atomic_write", lambda *_: True),
    "folder": (Path, "mkdir", lambda path, **_: path.name.startswith(".writing-step-")),
    "shard": (HuggingFaceStorageWriter, "write_data", lambda *_: True),
    "record": (sharded_record, "atomic_write", lambda *_: True),
    "pointer": (sharded_checkpoint, "atomic_write", lambda *_: True),
}
RUNS = [
    *[(latents, None, ()) for latents in (None, 2)],
    *[(None, where, at) for where in ("write", "in place") for at in ((10,), (15,))],
    *[(2, where, at) for where in ("folder", "shard", "record", "pointer") for at in ((10,), (15,))],
]


class Disk(Callback):
    """Full after some steps, for the first process, or for the second one if it writes a shard."""

    def __init__(self, where: str | None, steps: tuple[int, ...], rank: int) -> None:
        self.where, self.steps, self.full = where, steps, False
        self.mine = rank == (where == "shard")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.full = trainer.global_step in self.steps

    @contextmanager
    def of_this_process(self) -> Iterator[None]:
        if self.where is None or not self.mine:
            yield
            return
        owner, name, fails = WHERE[self.where]
        real = getattr(owner, name)

        def call(*words: Any, **named: Any) -> Any:
            if self.full and fails(*words, **named):
                raise FULL
            return real(*words, **named)

        with mock.patch.object(owner, name, call):
            yield


def work(rank: int, folder: Path, ports: list[int]) -> None:
    warnings.filterwarnings("ignore")
    for number, (latents, where, at) in enumerate(RUNS):
        os.environ["MASTER_PORT"] = str(ports[number])
        found, disk = module(Groups.of_ranks(rank, 2, latents or 1)), Disk(where, at, rank)
        last = LastCheckpoint(str(folder / str(number)), every=EVERY)
        with disk.of_this_process():
            trainer = fit(found, folder, STEPS, disk, last, strategy=strategy(latents), devices=2)
        state = whole(found) | {"step": trainer.global_step, "saved": last.saved, "failed": last.unsaved is not None}
        torch.save(state, folder / f"{number}-{rank}.pt")
        if (latents, where) == (2, None):
            export(found, folder, rank)
        dist.destroy_process_group()


def export(found: SAEModule, folder: Path, rank: int) -> None:
    for owner, name in ((Path, "mkdir"), (shards, "_put_together")):
        fails = mock.patch.object(
            owner, name, side_effect=FULL if rank == 0 else AssertionError("the first one's work")
        )
        with fails, pytest.raises(OSError, match="No space left"):
            save_shared_sae(found.folded(), folder / "sae", {})
    save_shared_sae(found.folded(), folder / "sae", {})


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    together(work, 2, folder, [free_port() for _ in RUNS])
    return folder


@pytest.mark.parametrize("number", range(len(RUNS)), ids=str)
def test_both_processes_train_on_and_the_checkpoint_before_stays(number: int, ended: Path) -> None:
    """Not reported: the first process saved once more at the end and the second did not, which broke their connection; and
    where it could not make a folder, both waited for ever."""
    latents, _, at = RUNS[number]
    undisturbed = RUNS.index((latents, None, ()))
    for rank in range(2):
        found, expected = (torch.load(ended / f"{n}-{rank}.pt", weights_only=True) for n in (number, undisturbed))
        assert found["step"] == STEPS
        assert (found["saved"], found["failed"]) == ((10, True) if at == (15,) else (15, False))
        assert all(torch.equal(found[name], expected[name]) for name in ("W_dec", "threshold", "b_enc", "codes"))
    kept = {None: [10, 15], (10,): [5, 15], (15,): [5, 10]}[at or None]
    folder = ended / str(number)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"last.ckpt", "previous.ckpt"}
    assert [read_checkpoint(folder / f"{name}.ckpt")["global_step"] for name in ("previous", "last")] == kept
    assert sum(path.is_dir() for path in folder.iterdir()) == (0 if latents is None else 2)


def test_an_sae_that_one_process_cannot_write_is_an_error_of_both_and_leaves_nothing(ended: Path) -> None:
    assert {path.name for path in (ended / "sae").iterdir()} == {"cfg.json", "sae_weights.safetensors", "SHA256SUMS"}
    assert load_sae(ended / "sae").d_sae == 37


def test_the_file_that_parts_are_copied_into_has_no_holes(tmp_path: Path) -> None:
    """Not reported: on a full disk, to write into a hole through a memory map ends the process with SIGBUS."""
    places = shards._write_header(tmp_path / "file", {"W_dec": (3000, 1000), "b_dec": (1000,)})
    stated = (tmp_path / "file").stat()
    assert stated.st_size == places["b_dec"] + 4 * 1000
    assert stated.st_blocks * 512 >= stated.st_size
