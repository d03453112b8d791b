"""A cache that cannot be written, that others share, or that is not at fault."""

import logging
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from atomlab.activations.corpora.corpus import Example
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.language_model import LanguageModel
from tests.activations.modules import data_module

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and be somebody else")


def tiny_module(folder: Path, text: LocalText, cache: Path, **options) -> ActivationDataModule:
    model = LanguageModel(str(folder), dtype="float32", device="cpu")
    return data_module(model, text, site="resid_post", layer=0, cache_dir=str(cache), context=16, size=32, **options)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Shows a folder a second time, on a disk that cannot be written."""
    shown = tmp_path / "read only"
    shown.mkdir()

    def show(folder: Path) -> Path:
        subprocess.run(["mount", "--bind", folder, shown], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", shown], check=True)
        return shown

    yield show
    subprocess.run(["umount", "--lazy", shown], check=True)


@needs_root
@pytest.mark.parametrize("kept", [True, False])
def test_a_complete_cache_is_read_from_a_disk_that_cannot_be_written(
    families: dict[str, Path], text: LocalText, tmp_path: Path, read_only, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    """faults.md D10: the lock made it unreadable. Moments that are not there are computed, and one line says so."""
    writable = tiny_module(families["llama"], text, tmp_path / "cache")
    writable.prepare_data()
    writable.setup()
    if not kept:
        for file in (tmp_path / "cache").rglob("moments-*"):
            file.unlink()
    (writable.folder(text) / "lock").unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        data = tiny_module(families["llama"], text, read_only(tmp_path / "cache"), source="file:///nowhere")
        data.harvest(Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False))
        data.prepare_data()
        data.setup()
    rows = torch.arange(len(data.rows["train"]))
    assert torch.equal(data.rows["train"][rows], writable.rows["train"][rows])
    torch.testing.assert_close(data.moments.second_moment, writable.moments.second_moment, rtol=0, atol=0)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("moments")]
    assert len(said) == (0 if kept else 2)  # of the corpus and of the reference, which are the same here
    assert all("computed anew in every run" in each and "Read-only file system" in each for each in said)
    with pytest.raises(OSError, match=r"cache_dir=.* could not be written .*Read-only file system"):
        tiny_module(families["llama"], text, tmp_path / "read only", max_tokens=200).prepare_data()


@needs_root
def test_a_cache_of_somebody_else_is_read(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    """Owned by root and writable by its owner only, read by a process of another user."""
    data = tiny_module(families["llama"], text, tmp_path / "cache")
    data.prepare_data()
    data.setup()
    for folder in (tmp_path, *tmp_path.parents[:3], families["llama"], *families["llama"].parents[:4]):
        folder.chmod(folder.stat().st_mode | 0o055)
    for file in families["llama"].iterdir():  # transformers writes weights for their owner alone
        file.chmod(0o644)
    pid = os.fork()
    if not pid:  # nothing but this below: the child ends here
        try:
            os.setgroups([])
            os.setuid(65534)
            other = tiny_module(families["llama"], text, tmp_path / "cache")
            other.prepare_data()
            other.setup()
            os._exit(0 if torch.equal(other.moments.mean, data.moments.mean) else 3)
        finally:
            os._exit(4)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027])
def test_every_file_and_folder_obeys_the_umask(
    families: dict[str, Path], text: LocalText, tmp_path: Path, umask: int
) -> None:
    """faults.md E6: safetensors had mode 0600 beside JSON of 0644; also of what is copied from elsewhere."""
    before = os.umask(umask)
    try:
        data = tiny_module(families["llama"], text, tmp_path / "cache")
        data.prepare_data()
        data.setup()
        copied = tiny_module(families["llama"], text, tmp_path / "copied", source=f"file://{tmp_path / 'cache'}")
        copied.prepare_data()
    finally:
        os.umask(before)
    for cache in (tmp_path / "cache", tmp_path / "copied"):
        found = list(cache.rglob("*"))
        assert len([file for file in found if file.suffix == ".safetensors"]) >= 6
        for file in found:
            expected = (0o777 if file.is_dir() else 0o666) & ~umask
            assert stat.S_IMODE(file.stat().st_mode) == expected, file


class Unreachable:
    """A corpus behind a network that is not there: a real socket to a port where nobody listens."""

    packed, position = True, "all"

    @property
    def fingerprint(self) -> dict[str, str]:
        return {"reached": "never"}

    def examples(self) -> Iterator[Example]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        yield Example("never", "never")


def test_a_network_that_fails_is_not_the_caches_fault(
    families: dict[str, Path], text: LocalText, tmp_path: Path
) -> None:
    """faults.md D10: it was reported as a cache folder that could not be written."""
    data = tiny_module(families["llama"], text, tmp_path / "cache")
    data.corpus = data.reference = Unreachable()  # type: ignore[assignment]
    with pytest.raises(OSError, match=r"Unreachable corpus could not be fetched over the network .*refused") as error:
        data.prepare_data()
    assert "cache_dir" not in str(error.value)
    data = tiny_module(families["llama"], text, tmp_path / "cache", source="http://127.0.0.1:9/cache")
    with pytest.raises(
        OSError, match=r"activations\.harvest\.source=http://127\.0\.0\.1:9/.* could not be reached"
    ) as error:
        data.prepare_data()
    assert "cache_dir" not in str(error.value)


def test_a_cache_that_is_a_file_is_the_caches_fault(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=r"cache_dir=.*cache could not be written \(.*Not a directory"):
        tiny_module(families["llama"], text, tmp_path / "cache").prepare_data()
