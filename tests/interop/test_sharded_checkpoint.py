"""A sharded checkpoint is whole or refused. One process writes these; tests/training/test_latent_parallel.py has several."""

import json
import resource
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from atomlab.files import sha256
from atomlab.groups import ALONE
from atomlab.interop import sharded_checkpoint
from atomlab.interop.checkpoint import find_checkpoint, read_checkpoint, read_progress
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


def reseal(pointer: Path, content: str) -> None:
    """Puts another record in the place of that of a checkpoint, with its checksum, as an attacker would."""
    stated = json.loads(pointer.read_text())
    record = pointer.parent / stated["folder"] / "record.json"
    record.write_text(content)
    pointer.write_text(json.dumps(stated | {"sha256": sha256(record)}))


def test_nothing_that_a_pointer_names_lies_elsewhere(saved: tuple[Path, Path]) -> None:
    pointer, folder = saved
    stated, record = json.loads(pointer.read_text()), json.loads((folder / "record.json").read_text())
    for name in ("../step-3", "/step-3", "step-3/../..", "other", "step-3\n", "step-" + "3" * 99, 3, None):
        pointer.write_text(json.dumps(stated | {"folder": name}))
        with pytest.raises(ValueError, match="no folder beside it"):
            load_sharded(pointer)
    for version, age in (
        (3, "a newer version"),
        (1, "an earlier version"),
        ("2", "an earlier version"),
        (True, "an earl"),
    ):
        pointer.write_text(json.dumps(stated | {"atomlab_sharded_checkpoint": version}))
        for read in (read_checkpoint, read_progress):
            with pytest.raises(
                ValueError, match=f"of format {version!r}, and this version of atomlab reads format 2; {age}"
            ):
                read(pointer)
    pointer.write_text(json.dumps(stated))
    reseal(pointer, json.dumps(record | {"files": {"../x.safetensors": "0"}}))
    with pytest.raises(ValueError, match=r"names '\.\./x\.safetensors', which is no file of it"):
        load_sharded(pointer)
    for files in ({}, record["files"] | {"y.safetensors": "0"}):
        reseal(pointer, json.dumps(record | {"files": files}))
        with pytest.raises(ValueError, match="its record and its folder differ in the file"):
            load_sharded(pointer)


def test_a_flipped_bit_is_found_or_changes_nothing(saved: tuple[Path, Path]) -> None:
    """Not reported: the record had no checksum, so that 0.999 became 0.919 and step 3 became step 4. Every byte of every file,
    through each way of reading; `read_progress` opens no file of tensors."""
    pointer, folder = saved
    files = sorted(folder.iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    for file in [*files, pointer]:
        before, said = file.read_bytes(), []
        for place, byte in enumerate(before):
            file.write_bytes(before[:place] + bytes([byte ^ (1 << place % 8)]) + before[place + 1 :])
            try:
                assert same(read_checkpoint(pointer), content()), place
            except ValueError as error:
                said.append(str(error))
            if file.suffix == ".json":
                with pytest.raises(ValueError, match="its checksum is another one"):
                    read_progress(pointer)
        file.write_bytes(before)
        spaces = 0 if file in files else before.count(b" ") + 1  # of JSON, in the pointer: any other space does as well
        assert len(said) >= len(before) - spaces
        assert all(each.startswith(f"{pointer} is no readable checkpoint of train.py (") for each in said)
        assert same(read_checkpoint(pointer), content())


HUGE = (1 << 29, 1 << 40, 1 << 58, 1 << 70, 10**4000)
W_DEC = "state_dict/sae.W_dec"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *[({"tensors": {W_DEC: {"shape": [size, 3]}}}, "W_dec' (do not cover it|has a size or)") for size in HUGE],
        ({"tensors": {W_DEC: {"shape": [0, 1 << 62]}}}, "has a size or a dtype that no tensor has"),
        ({"tensors": {W_DEC: {"shape": [2] * 5000}}}, "has no shape"),
        *[({"tensors": {W_DEC: {"shape": shape}}}, "has no shape") for shape in ([], 3, None, "x", [1.5, 3], [True, 3])],
        ({"tensors": {W_DEC: {"shape": [-4, 3]}}}, "has a size or a dtype"),
        *[({"tensors": {W_DEC: {"dtype": dtype}}}, "has a size or a dtype") for dtype in ("Tensor", None, 3, ["float32"])],
        *[({"tensors": {W_DEC: {"dtype": dtype}}}, "do not cover it") for dtype in ("float64", "quint8", "int32")],
        *[({"tensors": {W_DEC: {"dimension": axis}}}, "has no dimension") for axis in (2, -1, "0", 0.0, True)],
        *[({"tensors": {"gone": {"shape": [2], "dtype": "float32"}}}, "the pieces of 'gone' do not cover it")],
        *[({"tensors": {W_DEC: entry}}, "has no shape") for entry in (None, 3, [], "x", {})],
        *[({part: value}, "has no files, tensors and rest") for part in ("files", "tensors", "rest") for value in (None, [1])],
        ({"rest": {"global_step": "3"}}, "it has no global_step"),
        ({"rest": {"state_dict": []}}, "it has no state_dict"),
        ({"rest": {"loops": {"__atomlab__": "number", "value": 1, "dtype": "x"}}}, "a part of the record cannot be read"),
        ({"rest": {"loops": {"__atomlab__": "tensor", "path": "gone"}}}, "a part of the record cannot be read"),
    ],
)  # fmt: skip
def test_a_record_that_somebody_made_up_is_refused_in_a_sentence_before_memory_is_taken(
    saved: tuple[Path, Path], change: dict[str, Any], said: str
) -> None:
    """Not reported: a shape of 2^40 numbers was allocated first, and what was missing ended in a KeyError. Files are whole."""
    pointer, folder = saved
    record = json.loads((folder / "record.json").read_text())
    for part, value in change.items():
        if isinstance(value, dict):
            for key, new in value.items():
                old = record[part].get(key)
                record[part][key] = old | new if isinstance(old, dict) and isinstance(new, dict) and new else new
        else:
            record[part] = value
    reseal(pointer, json.dumps(record))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=said) as error:
        read_checkpoint(pointer)
    assert str(error.value).startswith(f"{pointer} is no readable checkpoint of train.py (")
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; one of 2^29 x 3 would be 6 GB


@pytest.mark.parametrize(
    ("content", "said"),
    [("[" * 100_000, "is no JSON"), ("[]", "has no files"), ('{"a":' * 900 + "1" + "}" * 900, "has no files"),
     (" " * ((1 << 24) + 1), "has 16,777,217 bytes, more than any record")],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(saved: tuple[Path, Path], content: str, said: str) -> None:
    reseal(saved[0], content)
    for read in (read_checkpoint, read_progress):
        with pytest.raises(ValueError, match=said):
            read(saved[0])


def test_a_record_that_is_nested_too_deeply_is_refused(saved: tuple[Path, Path]) -> None:
    record = json.loads((saved[1] / "record.json").read_text())
    nested: Any = []
    for _ in range(900):
        nested = [nested]
    reseal(saved[0], json.dumps(record | {"rest": record["rest"] | {"loops": {"a": nested}}}))
    with pytest.raises(ValueError, match="nested too deeply"):
        read_progress(saved[0])


def test_a_damaged_file_is_named_and_the_checkpoint_before_it_used(
    saved: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pointer, folder = saved
    newer = pointer.with_name("previous.ckpt")
    with (
        mock.patch.object(sharded_checkpoint, "write_pointer", side_effect=OSError("full")),
        pytest.raises(OSError, match="full"),
    ):
        save_sharded(content(7), {}, newer.parent, newer, ALONE)
    assert {path.name for path in newer.parent.iterdir()} == {"last.ckpt", folder.name}  # nothing half-written stays
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
    reseal(pointer, json.dumps(record | {"files": {shard.name: sha256(shard)}}))
    with pytest.raises(ValueError, match=r"the pieces of 'state_dict/sae\.W_dec' do not cover it"):
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
