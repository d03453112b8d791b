"""Every file is opened and written in one way."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atomlab import ThresholdSAE, save_sae
from atomlab.files import atomic_write, open_as_usual, regular


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
    open_as_usual(tmp_path / "new")
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
