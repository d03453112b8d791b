"""A sharded checkpoint is whole or refused. One process writes these; tests/training/test_latent_parallel.py has several."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atomlab.files import sha256
from atomlab.groups import ALONE
from atomlab.interop.checkpoint import find_checkpoint, read_checkpoint
from atomlab.interop.sharded_checkpoint import check_sharded, load_sharded, save_sharded
from atomlab.interop.tensors_in_json import put_together, take_apart


def content(step: int = 3) -> dict[str, Any]:
    state = {"sae.W_dec": torch.arange(12.0).view(4, 3), "since_fired": torch.tensor([1, 2, 3, 4])}
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.ones(4, 3)}}, "betas": (0.9, 0.999)}
    return {
        "global_step": step,
        "state_dict": state,
        "optimizer_states": [optimizer],
        "loops": {"best": None, "nan": 0.1},
    }


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    pointer = tmp_path / "last.ckpt"
    save_sharded(content(), {"state_dict/sae.W_dec": 0}, tmp_path, pointer, ALONE)
    return pointer, tmp_path / json.loads(pointer.read_text())["folder"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


def test_all_of_it_comes_back_with_types_and_keys(saved: tuple[Path, Path]) -> None:
    assert same(load_sharded(saved[0]), content())
    assert same(read_checkpoint(saved[0]), content())
    with pytest.raises(TypeError, match=r"Path at a/1"):
        take_apart({"a": [1, Path()]})
    with pytest.raises(TypeError, match=r"two tensors at a/1"):
        take_apart({"a": {1: torch.ones(2), "1": torch.ones(2)}})


def test_nothing_that_a_pointer_names_lies_elsewhere(saved: tuple[Path, Path]) -> None:
    pointer, folder = saved
    for name in ("../step-3", "/step-3", "step-3/../..", "other", 3):
        pointer.write_text(json.dumps({"atomlab_sharded_checkpoint": 1, "folder": name}))
        with pytest.raises(ValueError, match="no folder beside it"):
            load_sharded(pointer)
    pointer.write_text(json.dumps({"atomlab_sharded_checkpoint": 2, "folder": folder.name}))
    with pytest.raises(ValueError, match="of format 2, and this atomlab reads format 1"):
        load_sharded(pointer)
    record = json.loads((folder / "record.json").read_text())
    pointer.write_text(json.dumps({"atomlab_sharded_checkpoint": 1, "folder": folder.name}))
    (folder / "record.json").write_text(json.dumps(record | {"files": {"../x.safetensors": "0"}}))
    with pytest.raises(ValueError, match=r"names '\.\./x\.safetensors', which is no file of it"):
        load_sharded(pointer)


def test_a_damaged_file_is_named_and_the_checkpoint_before_it_used(
    saved: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pointer, folder = saved
    newer = pointer.with_name("previous.ckpt")
    save_sharded(content(9), {}, newer.parent, newer, ALONE)
    assert find_checkpoint(newer.parent) == newer
    (shard,) = (newer.parent / json.loads(newer.read_text())["folder"]).glob("*.safetensors")
    content_before = shard.read_bytes()
    shard.write_bytes(content_before[:-1] + bytes([content_before[-1] ^ 1]))
    for read in (load_sharded, check_sharded, read_checkpoint):
        with pytest.raises(ValueError, match=f"{shard.name} is damaged: its checksum is another one"):
            read(newer)
    assert find_checkpoint(newer.parent) == pointer
    assert "previous.ckpt is left out" in capsys.readouterr().err
    assert folder.is_dir()


def test_pieces_that_leave_a_hole_are_refused_even_with_the_right_checksum(saved: tuple[Path, Path]) -> None:
    """torch.distributed.checkpoint would leave in the hole what memory held."""
    pointer, folder = saved
    (shard,) = folder.glob("*.safetensors")
    tensors = load_file(shard)
    places = {name: {"saved_offsets": [0] * value.ndim} for name, value in tensors.items()}
    places["state_dict/sae.W_dec"]["saved_offsets"] = [1, 0]
    tensors["state_dict/sae.W_dec"] = tensors["state_dict/sae.W_dec"][1:].contiguous()
    save_file(tensors, shard, {"DCP_SHARDING_INFO": json.dumps(places)})
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"files": {shard.name: sha256(shard)}}))
    with pytest.raises(ValueError, match=r"the pieces of state_dict/sae\.W_dec do not cover it"):
        load_sharded(pointer)


def test_folders_that_nothing_points_to_are_removed(saved: tuple[Path, Path]) -> None:
    pointer, first = saved
    (pointer.parent / ".writing-step-5-abcdef").mkdir()
    save_sharded(content(6), {}, pointer.parent, pointer, ALONE)
    assert first.is_dir()  # until the pointer to the next one is in its place
    save_sharded(content(9), {}, pointer.parent, pointer, ALONE)
    assert len([path for path in pointer.parent.iterdir() if path.is_dir()]) == 2
    assert not first.exists()


def test_what_is_no_record_is_refused() -> None:
    for broken in ({"__atomlab__": "tensor", "path": "gone"}, {"__atomlab__": "number", "value": 1, "dtype": "x"}):
        with pytest.raises(ValueError, match="cannot be read"):
            put_together(broken, {})
