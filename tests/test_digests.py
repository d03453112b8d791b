"""A file's digest is that of its content, however often it is asked for and whatever else stays the same."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from atomlab.files import file_digest

ONE, TWO = (bytes([i]) * (1 << 20) for i in (1, 2))  # large enough to be remembered


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATOMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.json"


def written(file: Path, content: bytes, age: float = 10) -> Path:
    file.write_bytes(content)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_it_is_sha256_and_an_edit_of_equal_length_and_time_changes_it(tmp_path: Path, memory: Path) -> None:
    file = written(tmp_path / "a", ONE)
    assert file_digest(file) == hashlib.sha256(ONE).hexdigest()
    stat = file.stat()
    file.write_bytes(TWO)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what a copying tool may do
    assert file_digest(file) == hashlib.sha256(TWO).hexdigest()


def test_small_files_are_read_each_time(tmp_path: Path, memory: Path) -> None:
    assert file_digest(written(tmp_path / "a", b"x")) == hashlib.sha256(b"x").hexdigest()
    assert not memory.exists()


def test_what_was_read_once_is_not_read_again(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "a", ONE)
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + int(1e10))  # long after its last change
    first = file_digest(file)
    assert memory.exists()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert file_digest(file) == first


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, memory: Path, content: str) -> None:
    memory.parent.mkdir()
    memory.write_text(content)
    assert file_digest(written(tmp_path / "a", ONE)) == hashlib.sha256(ONE).hexdigest()


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMLAB_CACHE", "/proc/atomlab")
    assert file_digest(written(tmp_path / "a", ONE)) == hashlib.sha256(ONE).hexdigest()
