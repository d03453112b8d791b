"""HarvestCache under SIGKILL, damage, a full disk, several processes and other sources."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import fsspec
import pytest
import torch

from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.shards import plan
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.activation_store import ActivationStore
from atomlab.activations.store.files import INDEX, check_files, read_index
from atomlab.activations.store.row_origins import TOKENS_INDEX, read_sequences
from atomlab.activations.tokens.sequences import Frame, batch, prompts, sample
from atomlab.activations.tokens.tokenise import SPLITS
from atomlab.files import sha256
from tests.activations.conftest import in_own_process
from tests.activations.modules import data_module

ROOT = Path(__file__).parents[3]


def tiny_module(folder: Path, text: LocalText, cache: Path, **options) -> ActivationDataModule:
    model = LanguageModel(str(folder), dtype="float32", device="cpu")
    options = {"shard_rows": 50, "batch_tokens": 32, "context": 16, "size": 32} | options
    return data_module(model, text, site="resid_post", layer=1, cache_dir=str(cache), **options)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_ten_kills_end_in_the_cache_of_an_uninterrupted_harvest(
    families: dict[str, Path], text: LocalText, tmp_path: Path
) -> None:
    said = in_own_process("processes.py", "kill", families["llama"], text.path, tmp_path / "killed", tmp_path / "whole")
    counts = [int(count) for count in re.findall(r"\d+", said)]
    assert len(counts) == 11
    assert sum(0 < count < counts[-1] for count in counts[:-1]) >= 5, said  # kills fell into the middle


def test_what_a_kill_left_half_written_is_removed(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    data = tiny_module(families["llama"], text, tmp_path)
    place = data.folder(text) / str(data.point)
    place.mkdir(parents=True)
    for name in (".writing-1-train-00000.safetensors", ".tmpvOwbNO"):  # ours, and the one that safetensors renames
        (place / name).write_bytes(b"half")
    data.prepare_data()
    assert not [file.name for file in data.folder(text).rglob(".*")]


def test_of_two_processes_one_harvests_and_the_other_waits(
    families: dict[str, Path], text: LocalText, tmp_path: Path
) -> None:
    in_own_process("processes.py", "share", families["llama"], text.path, tmp_path / "cache", tmp_path)
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second"))
    folder = tiny_module(families["llama"], text, tmp_path / "cache").folder(text)
    shards = [shard for split in SPLITS for shard in plan(split, read_sequences(folder, split), 50, 32)]
    assert first["passes"] == sum(len(shard.batches) for shard in shards) + 6  # and six short ones before the first
    assert second["passes"] == 0
    assert first["began"] < second["began"] < first["ended"] < second["ended"]


def test_every_byte_of_every_file_is_guarded(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    """Headers, rows, norms, token sequences, groups, moments and the indices themselves."""
    short = LocalText(str(text.path), limit=3)
    data = tiny_module(families["llama"], short, tmp_path, context=8, shard_rows=25)
    data.prepare_data()
    data.setup()
    folder = data.folder(short)
    site, tokens = folder / str(data.point), read_index(folder / TOKENS_INDEX, "files")["files"]
    shards = read_index(site / INDEX, "shards")["shards"]
    (moments,) = site.glob("moments-*.json")
    guarded = [(site, name, shards) for name in shards] + [(folder, name, tokens) for name in tokens]
    assert len(shards) >= 4
    for place, name, records in [
        *guarded,
        (site, moments.with_suffix(".safetensors").name, read_index(moments, "moments")["moments"]),
    ]:
        for _ in each_byte_altered(place / name):
            with pytest.raises(ValueError, match=rf"altered.*{name}"):
                check_files(place, {name: records[name]}, every_byte=True)
        check_files(place, {name: records[name]}, every_byte=True)
    for index, entry in ((site / INDEX, "shards"), (folder / TOKENS_INDEX, "files"), (moments, "moments")):
        for _ in each_byte_altered(index):
            with pytest.raises(ValueError, match=rf"altered.*{index.name}"):
                read_index(index, entry)
        read_index(index, entry)


def test_bytes_are_compared_once_while_the_files_stay_the_same(
    families: dict[str, Path], text: LocalText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The members of a bank, and a corpus that is its own reference, open one harvest many times."""
    read: list[str] = []
    monkeypatch.setattr(
        "atomlab.activations.store.files.sha256", lambda path: (read.append(path.name), sha256(path))[1]
    )
    data = tiny_module(families["llama"], text, tmp_path, shard_rows=500)
    data.prepare_data()
    read.clear()
    again = copy(data)
    data.setup()  # the corpus is the reference too
    assert sum(name.startswith("train-") for name in read) == len(
        list((data.folder(text) / str(data.point)).glob("train-*"))
    )
    read.clear()
    again.setup()
    assert read == [name for name in read if name.startswith("moments")]  # which are compared whenever they are read
    shard = data.folder(text) / str(data.point) / "train-00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"altered.*train-00000"):
        copy(tiny_module(families["llama"], text, tmp_path, shard_rows=500)).setup()
    fresh = data.at("resid_post", 1)  # not set up, with the same cache
    with pytest.raises(ValueError, match=r"altered.*train-00000"):
        fresh.setup()


def each_byte_altered(file: Path) -> Iterator[None]:
    content = file.read_bytes()
    with file.open("r+b", buffering=0) as stream:
        for i, byte in enumerate(content):
            stream.seek(i)
            stream.write(bytes([byte ^ (1 << i % 8)]))
            yield
            stream.seek(i)
            stream.write(bytes([byte]))


def test_the_named_command_rebuilds_the_same_bytes(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    """Whatever file is damaged: a run names it, and after the command that it names the same run rebuilds it."""

    def run() -> ActivationDataModule:
        data = tiny_module(families["llama"], text, tmp_path, shard_rows=500)
        data.prepare_data()
        data.setup()
        return data

    folder = run().folder(text)
    before = contents(folder)
    assert len(before) >= 10
    for name, content in before.items():
        for bad in (content[:-9], content[:-9] + bytes(9)):
            (folder / name).write_bytes(bad)
            with pytest.raises(ValueError, match=Path(name).name) as error:
                run()
            command = re.search(r"`(rm [^`]*)`", str(error.value))
            assert command is not None
            subprocess.run(command[1], shell=True, check=True)
            run()
            assert contents(folder) == before, name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_announced_and_loses_nothing(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    tiny_module(families["llama"], text, tmp_path / "whole").prepare_data()
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        with pytest.raises(OSError, match=r"needs .* GB and the disk has .* GB left"):
            tiny_module(families["llama"], text, disk).prepare_data()
        original, shutil.disk_usage = (
            shutil.disk_usage,
            lambda path: original("/"),
        )  # the check is passed, and then it fills
        try:
            with pytest.raises(OSError, match=r"cache_dir=.*could not be written"):
                tiny_module(families["llama"], text, disk).prepare_data()
        finally:
            shutil.disk_usage = original
        kept, whole = contents(disk), contents(tmp_path / "whole")
        assert sum("train-0" in name for name in kept) >= 1
        assert all(whole[name] == content for name, content in kept.items())
        shutil.copytree(disk, tmp_path / "larger")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # what failed may still map its files
    tiny_module(families["llama"], text, tmp_path / "larger").prepare_data()
    assert contents(tmp_path / "larger") == contents(tmp_path / "whole")


def test_another_cache_is_read_by_url_and_checked(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    first = tiny_module(families["llama"], text, tmp_path / "first")
    first.prepare_data()
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "first"), "/elsewhere", recursive=True)
    second = tiny_module(families["llama"], text, tmp_path / "second", source="memory://elsewhere")
    second.model.load = None  # type: ignore[method-assign]  # no forward pass is possible
    second.prepare_data()
    second.setup()
    rows = torch.arange(len(second.rows["test"]))
    first.setup()
    assert torch.equal(first.rows["test"][rows], second.rows["test"][rows])
    name = f"/elsewhere/activations/{first.folder(text).name}/{first.point}/test-00000.safetensors"
    memory.pipe(name, memory.cat(name)[:-1] + b"!")
    third = tiny_module(families["llama"], text, tmp_path / "third", source="memory://elsewhere")
    with pytest.raises(ValueError, match="altered"):
        third.prepare_data()
    assert not list((tmp_path / "third").rglob("index.json"))
    memory.rm("/elsewhere", recursive=True)


def harvest_by_two(llama: Path, text: LocalText, cache: Path, script: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from lightning.pytorch import Trainer
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.corpora.local import LocalText
from tests.activations.modules import data_module
text = LocalText({str(text.path)!r})
model = LanguageModel({str(llama)!r}, dtype="float32", device="cpu")
data = data_module(model, text, site="resid_post", layer=1, cache_dir={str(cache)!r},
    shard_rows=50, batch_tokens=32, context=16, size=32)
data.harvest(Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False))
"""
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_take_disjoint_shards_and_end_the_same(
    families: dict[str, Path], text: LocalText, tmp_path: Path
) -> None:
    harvest_by_two(families["llama"], text, tmp_path / "two", tmp_path / "two.py")
    one = tiny_module(families["llama"], text, tmp_path / "one")
    one.prepare_data()
    two = tiny_module(families["llama"], text, tmp_path / "two")
    assert {n.split("/")[-1] for n in contents(tmp_path / "one")} == {
        n.split("/")[-1] for n in contents(tmp_path / "two")
    }
    for split in ("train", "test"):
        a, b = (ActivationStore(d.folder(text) / str(d.point), split) for d in (one, two))
        b.verify()
        torch.testing.assert_close(a[torch.arange(len(a))], b[torch.arange(len(b))], rtol=1e-5, atol=1e-5)


def test_a_process_for_which_there_is_no_file_left_waits_for_the_others(
    families: dict[str, Path], text: LocalText, tmp_path: Path
) -> None:
    """Not reported: Lightning had the first process send its model to one that had loaded none, and neither ended."""
    one = tiny_module(families["llama"], text, tmp_path / "cache")
    one.prepare_data()
    folder = one.folder(text) / str(one.point)
    whole = (folder / "test-00000.safetensors").read_bytes()
    for name in ("test-00000.safetensors", "index.json"):
        (folder / name).unlink()
    harvest_by_two(families["llama"], text, tmp_path / "cache", tmp_path / "two.py")
    assert (folder / "test-00000.safetensors").read_bytes() == whole
    assert (folder / "index.json").exists()


def test_no_batch_holds_padding() -> None:
    lengths = torch.randint(1, 12, (50,), generator=torch.Generator().manual_seed(0)).tolist()
    documents = [torch.arange(n, dtype=torch.int32) for n in lengths]
    sequences = sample(prompts(documents, [n - 1 for n in lengths], list(range(50)), 16, Frame()), None, 0)
    made = [batch(sequences, *span) for shard in plan("train", sequences, 9, 24) for span in shard.batches]
    assert sum(b.inputs["input_ids"].numel() for b in made) == sum(lengths)
    assert (
        torch.cat([b.inputs["input_ids"].flatten()[b.kept] for b in made]).tolist()
        == sequences.input_ids[sequences.keep].tolist()
    )


def test_a_data_module_is_cheap_to_build_and_asks_for_its_model_later(text: LocalText, tmp_path: Path) -> None:
    """Neither the hub nor a disk is asked while a configuration is put together: what is wrong there is said later."""
    data = data_module(
        LanguageModel(str(tmp_path / "nowhere"), device="cpu"),
        text,
        site="resid_post",
        layer=0,
        cache_dir=str(tmp_path),
    )
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere"):
        _ = data.identity
