"""A checkpoint is whole or refused, whatever happened to its bytes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atomlab.interop import checkpoint_file
from atomlab.interop.checkpoint import find_checkpoint, read_checkpoint
from atomlab.interop.checkpoint_file import write_checkpoint_file
from tests.processes import one_sentence, run
from tests.tiny import OPTIONS


def small(path: Path, step: int = 3) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {"sae.W_dec": torch.randn(3, 4, generator=generator), "transform.mean": torch.randn(4, generator=generator)}
    moments = {"exp_avg": torch.randn(3, 4, generator=generator)}
    parts = {"state_dict": state, "optimizer_states": [moments], "loops": {"epoch": 0}, "global_step": step}
    write_checkpoint_file(parts, path)
    return path


NAMES = {"last": 750, "previous": 500, "best": 250}


def flat(value: Any) -> list[Any]:
    """Every leaf with where it lies, tensors as bytes."""
    if isinstance(value, dict):
        return [(repr(key), flat(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [flat(each) for each in value]
    return [value.dtype, value.shape, value.numpy().tobytes()] if isinstance(value, torch.Tensor) else [value]


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """faults.md E3: every byte of the file, headers, padding and central directory too."""
    file = small(tmp_path / "last.ckpt")
    content, before = file.read_bytes(), flat(read_checkpoint(file))
    said = []
    for place, byte in enumerate(content):
        file.write_bytes(content[:place] + bytes([byte ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            assert flat(read_checkpoint(file)) == before, place
        except ValueError as error:
            said.append(str(error))
    data = sum(part.numel() * 4 for part in (torch.empty(3, 4), torch.empty(4), torch.empty(3, 4)))
    assert all("is no readable checkpoint" in each for each in said)
    assert len(said) > data  # all of the tensors' bytes, and those of the state and the names


def test_what_is_no_checkpoint_names_the_other_one(tmp_path: Path) -> None:
    """faults.md E4 and E5: half, empty, text, a folder, a pipe, a device, somebody else's; and a whole one beside it."""
    small(tmp_path / "previous.ckpt", step=250)
    whole = small(tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "best.ckpt").write_bytes(whole[:-30])
    os.utime(tmp_path / "best.ckpt", (2e9, 2e9))  # the newest, and damaged
    file = tmp_path / "last.ckpt"

    def refused(reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as error:
            read_checkpoint(file)
        assert str(error.value).endswith(f"; {tmp_path}/previous.ckpt can be read and goes on after step 250.")
        assert "\n" not in str(error.value)

    for content, reason in ((whole[: len(whole) // 2], "no whole"), (b"", "empty"), (b"text" * 99, "no whole")):
        file.write_bytes(content)
        refused(reason)
    for content, reason in (({"weight": torch.ones(2)}, "no state_dict"), ({"state_dict": 1}, "no state_dict")):
        write_checkpoint_file(content, file)
        refused(reason)
    write_checkpoint_file({"state_dict": {}}, file)
    refused("no optimizer_states, loops, global_step")
    torch.save({"state_dict": {}}, file)  # a pickle is not opened
    refused("PyTorch's format, in which earlier versions")
    save_file({"W_dec": torch.ones(2)}, file)  # somebody else's
    refused("no checkpoint of train.py: its metadata has no atomlab_checkpoint, state, sha256")
    parts = read_checkpoint(small(tmp_path / "x.pt"))
    write_checkpoint_file(parts | {"state_dict": {"sae.b": torch.tensor([1.0, torch.nan])}}, file)
    refused(r"sae\.b is not finite")
    for version, reason in ((2, "'2' .* newer version of atomlab wrote it: use that"), ("x", "'x' .* no version of")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_file, "FORMAT", version)
            write_checkpoint_file(parts, file)
        refused(f"its format is {reason}")
    file.unlink()
    file.mkdir()
    refused("a folder: expected a regular file")
    file.rmdir()
    os.mkfifo(file)
    refused("a pipe")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused("a device")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"does not exist; .*previous\.ckpt can be read"):
        read_checkpoint(file)
    (tmp_path / "previous.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="does not exist: give another run's checkpoint"):
        read_checkpoint(file)


def test_the_newest_readable_checkpoint_is_that_of_the_most_steps_whatever_the_clock_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="has no checkpoints: give the folder of a run"):
        find_checkpoint(tmp_path)
    last, previous, best = (small(folder / f"{name}.ckpt", step) for name, step in NAMES.items())
    (folder / ".writing-7-last.ckpt").write_bytes(b"half")
    os.utime(best, (2e9, 2e9))  # the clock went backwards afterwards
    assert find_checkpoint(tmp_path) == find_checkpoint(folder) == find_checkpoint(last) == last
    assert capsys.readouterr().err == ""
    for damaged, reason in (
        (last.read_bytes()[:-1], "no whole"),
        (last.read_bytes()[:-1] + b"!", "SHA-256"),
        (b"", "empty"),
    ):
        last.write_bytes(damaged)
        for asked in (tmp_path, last):
            assert find_checkpoint(asked) == previous
            first, second = capsys.readouterr().err.splitlines()
            assert first.startswith(f"atomlab: {last} is left out: it is no readable checkpoint (it")
            assert reason in first
            assert second == f"atomlab: {previous} is used in its place; it goes on after step 500."
    previous.write_bytes(b"")
    assert find_checkpoint(last) == best
    best.write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt is no readable checkpoint .* none beside it is: start a new run"):
        find_checkpoint(last)


def test_train_refuses_half_a_checkpoint_before_any_work(tiny: Path, tmp_path: Path) -> None:
    """faults.md E4, through the command line."""
    for name in ("model", "text.txt"):
        (tmp_path / name).symlink_to(tiny / name)
    small(tmp_path / "previous.ckpt")
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "previous.ckpt").read_bytes()[:600])
    (tmp_path / "previous.ckpt").write_bytes(b"")
    said = one_sentence(run("train.py", *OPTIONS, "resume=last.ckpt", cwd=tmp_path, cache=tmp_path / "cache"))
    assert "last.ckpt is no readable checkpoint of train.py" in said
    assert "and none beside it is: start a new run in another folder." in said
    assert not (tmp_path / "cache" / "activations").exists()
