"""Files are opened and written in one way, and a digest is that of the content, however often it is asked for."""

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atomlab import ThresholdSAE, save_sae
from atomlab.activations.corpora import wikipedia
from atomlab.activations.model import smollm2
from atomlab.files import atomic_write, file_digest, give_default_mode, package_file, regular


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_file_has_the_mode_that_open_would_give_it(tmp_path: Path, umask: int) -> None:
    """faults.md E6: safetensors renames a file of mode 0600 into place; also an SAE's folder and any library's file."""
    with (tmp_path / "by open").open("w"):
        pass
    expected = mode(tmp_path / "by open")
    assert expected == 0o666 & ~umask
    with atomic_write(tmp_path / "new" / "a.safetensors") as file:
        save_file({"a": torch.ones(1)}, file)
    save_sae(ThresholdSAE(3, 4), tmp_path / "sae", {})
    for name in ("new/a.safetensors", "sae/cfg.json", "sae/sae_weights.safetensors"):
        assert mode(tmp_path / name) == expected, name
    assert mode(tmp_path / "new") == mode(tmp_path / "sae") == 0o777 & ~umask
    save_file({"a": torch.ones(1)}, tmp_path / "new" / "theirs.safetensors")
    give_default_mode(tmp_path / "new")
    assert {file.name: mode(file) for file in (tmp_path / "new").iterdir()} == dict.fromkeys(
        ("a.safetensors", "theirs.safetensors"), expected
    )


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def fail() -> None:
        with atomic_write(tmp_path / "file") as file:
            file.write_text("half")
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]


def test_an_ordinary_file_is_a_file_or_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert regular(tmp_path / "link") == tmp_path / "link"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("device", "a device"), (".", "a folder")):
        found: list[str] = []

        def look(name: str = name, found: list[str] = found) -> None:
            try:
                regular(tmp_path / name)
            except ValueError as error:
                found.append(str(error))

        thread = threading.Thread(target=look, daemon=True)  # a pipe that is opened would wait for a writer
        thread.start()
        thread.join(timeout=30)
        assert [each.split(" is ")[1].split(":")[0] for each in found] == [kind]
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "nowhere")


ONE, TWO = (bytes([i]) * (1 << 20) for i in (1, 2))  # large enough to be remembered


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are remembered, at a time long after every change of a file."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + int(1e11))
    monkeypatch.setenv("ATOMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.json"


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def test_an_edit_of_equal_length_and_time_changes_the_digest(tmp_path: Path, memory: Path) -> None:
    file = written(tmp_path / "a", ONE)
    assert file_digest(file) == hashlib.sha256(ONE).hexdigest()
    assert memory.exists()
    before = after = file.stat()
    while after.st_ctime_ns == before.st_ctime_ns:  # the clock of a file system has coarse steps
        file.write_bytes(TWO)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # what a copying tool may do
        after = file.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (before.st_size, before.st_ino, before.st_mtime_ns)
    assert file_digest(file) == hashlib.sha256(TWO).hexdigest()


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within one step of the file system's clock."""
    file = written(tmp_path / "a", ONE)
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + int(1e9))
    assert file_digest(file) == hashlib.sha256(ONE).hexdigest()
    assert not memory.exists()


def test_small_files_are_read_each_time(tmp_path: Path, memory: Path) -> None:
    assert file_digest(written(tmp_path / "a", b"x")) == hashlib.sha256(b"x").hexdigest()
    assert not memory.exists()


def test_what_was_read_once_is_not_read_again(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = written(tmp_path / "a", ONE), written(tmp_path / "b", TWO)
    digests = [file_digest(one), file_digest(two)]
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert [file_digest(one), file_digest(two)] == digests


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, memory: Path, content: str) -> None:
    memory.parent.mkdir()
    memory.write_text(content)
    assert file_digest(written(tmp_path / "a", ONE)) == hashlib.sha256(ONE).hexdigest()


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMLAB_CACHE", "/proc/atomlab")
    assert file_digest(written(tmp_path / "a", ONE)) == hashlib.sha256(ONE).hexdigest()


def test_a_packages_file_is_the_only_one_of_its_name() -> None:
    assert package_file("filelock", "filelock/__init__.py").read_text(encoding="utf-8")
    for package, suffix in (("filelock", ".py"), ("filelock", "none.such"), ("no-such-package", ".py")):
        with pytest.raises(FileNotFoundError, match=f"pip install --no-deps {package}==1.0"):
            package_file(f"{package}==1.0", suffix)


def test_what_a_message_installs_is_what_the_tests_install() -> None:
    root = Path(__file__).parent.parent
    pinned = (root / "requirements-embedded.txt").read_text().split() + (root / "requirements.txt").read_text().split()
    assert {wikipedia._PACKAGE, smollm2._PACKAGE, smollm2._READER} <= {*pinned}


def test_a_missing_reader_of_the_embedded_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"the package 'gguf': run `pip install gguf==0.19.0`"):
        smollm2.smollm2(str(tmp_path))
