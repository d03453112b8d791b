"""A harvest from elsewhere is sound as a whole, or refused in one sentence, and never writes outside its folder."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from atomlab.activations.harvest.remote import fetch
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import ActivationStore
from atomlab.activations.store.files import INDEX, file_entry, write_index, write_tensors
from atomlab.activations.store.row_origins import TOKENS_INDEX, Layout, Origins, write_sequences
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import SPLITS, Tokens

POINT = HookPoint.parse("a.output")
ROWS, WIDTH = 6, 4


def sequences() -> Sequences:
    ids = torch.arange(ROWS, dtype=torch.int32)
    keep = torch.ones(ROWS, dtype=torch.bool)
    return Sequences(ids, torch.tensor([0, 2, 6]), keep, ids % 3, torch.zeros(ROWS, dtype=torch.int32))


def activations() -> dict[str, torch.Tensor]:
    x = torch.randn(ROWS // 2, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    return {"activations": x, "norms": x.float().norm(dim=1)}


def whole(folder: Path) -> Path:
    """A harvest of three splits, two shards each."""
    write_sequences(folder, Tokens({split: sequences() for split in SPLITS}, ["a document"]), Layout(100, 64))
    names = [f"{split}-{number:05d}.safetensors" for split in SPLITS for number in (0, 1)]
    shards = {name: {"rows": ROWS // 2} | write_tensors(folder / str(POINT) / name, activations()) for name in names}
    write_index(
        folder / str(POINT) / INDEX,
        {"hook_point": str(POINT), "dtype": "bfloat16", "width": WIDTH, "shards": shards},
    )
    return folder


def signed(value: Mapping[str, Any]) -> bytes:
    """An index as an attacker makes it: with a checksum that fits."""
    text = f"{json.dumps(value, indent=1)}\n".encode()
    return f"{json.dumps({'checksum': hashlib.sha256(text).hexdigest(), **value}, indent=1)}\n".encode()


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / name).read_bytes())
    del index["checksum"]
    (folder / name).write_bytes(signed(change(index)))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def refused(url: str, tmp_path: Path, said: str) -> None:
    """Nothing of it stays in the cache but the lock, and nothing is written beside the cache."""
    cache = tmp_path / "place" / "cache"
    with pytest.raises(ValueError, match=said) as error:
        fetch(url, cache, [POINT])
    assert str(error.value).startswith(f"activations.harvest.source: what lies at {url} is refused (")
    assert "\n" not in str(error.value)
    kept = {name for name in everything(tmp_path / "place") if not name.endswith("/lock")}
    tokens = {f"cache/{name}" for name in everything(cache) if "/" not in name}
    assert kept <= tokens
    assert not (cache / str(POINT)).exists()


def url_of(folder: Path, kind: str) -> str:
    if kind == "file":
        return f"file://{folder}"
    memory = fsspec.filesystem("memory")
    if memory.exists("/hostile"):
        memory.rm("/hostile", recursive=True)
    memory.put(str(folder), "/hostile", recursive=True)
    return "memory://hostile"


OUTSIDE = [
    "/tmp/escaped.safetensors",
    "../escaped.safetensors",
    "../../escaped",
    "a/../../../escaped",
    "..",
    ".",
    "",
    "C:\\escaped",
    "..\\escaped",
    "train-00000.safetensors\0",
    "train-00000.safetensors\n",
    "train-00000.safetensors/",
    "train-٠٠٠٠٠.safetensors",
    "index.json",
    "lock",
    "tokens.json",
]


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("index", [TOKENS_INDEX, f"{POINT}/{INDEX}"])
def test_a_name_is_a_plain_file_of_this_format(tmp_path: Path, kind: str, name: str, index: str) -> None:
    """faults.md E1: an absolute name over file:// and ../ over memory:// each wrote a file elsewhere."""
    source = whole(tmp_path / "source")
    entry = "files" if index == TOKENS_INDEX else "shards"

    def renamed(content: dict[str, Any]) -> dict[str, Any]:
        first = next(iter(content[entry]))
        content[entry][name] = content[entry].pop(first)
        return content

    changed(source, index, renamed)
    for target in (tmp_path / "escaped.safetensors", tmp_path / "escaped"):
        target.write_bytes(b"mine")
    refused(url_of(source, kind), tmp_path, "it names ")
    assert (tmp_path / "escaped").read_bytes() == b"mine"
    assert not Path("/tmp/escaped.safetensors").exists()


def test_a_hook_point_that_leads_out_is_refused(tmp_path: Path) -> None:
    """Through a link in the cache, and by its own name: also a point that nobody fetched from elsewhere."""
    source, cache = whole(tmp_path / "source"), tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "outside").mkdir()
    (cache / str(POINT)).symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leads out of the cache"):
        fetch(f"file://{source}", cache, [POINT])
    assert not list((tmp_path / "outside").iterdir())
    shutil.copytree(source / str(POINT), tmp_path / "x.output")
    with pytest.raises(ValueError, match="leads out of the cache"):
        fetch(f"file://{source}", cache, [HookPoint("../x", "output")])


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    source, cache = whole(tmp_path / "source"), tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    for name in ("groups.json", "train.tokens.safetensors", "tokens.json"):
        (cache / name).symlink_to(tmp_path / "mine" if name != "tokens.json" else tmp_path / "nowhere")
    fetch(f"file://{source}", cache, [POINT])
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()
    assert len(Origins.read(cache, "train")) == ROWS


def set_of(*path: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Puts a value into an index; ... takes it out."""

    def change(index: dict[str, Any]) -> dict[str, Any]:
        place = index
        for step in path[:-1]:
            place = place[step]
        place.pop(path[-1], None)
        if value is not ...:
            place[path[-1]] = value
        return index

    return change


FIRST, GROUPS = "train-00000.safetensors", "groups.json"


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [
        *(
            (f"{POINT}/{INDEX}", set_of("shards", FIRST, field, value=value), "is no size and checksum")
            for field, value in (
                ("bytes", -1), ("bytes", 1.5), ("bytes", "9"), ("bytes", True), ("bytes", None), ("bytes", 10**30),
                ("bytes", ...), ("sha256", "x"), ("sha256", None), ("sha256", ...), ("rows", -1), ("rows", ...),
                ("rows", [3]), ("more", 1),
            )
        ),
        (f"{POINT}/{INDEX}", set_of("shards", FIRST, "bytes", value=10**18), "bytes and 1000000000000000000 are stated"),
        (f"{POINT}/{INDEX}", set_of("shards", FIRST, "bytes", value=1), "bytes and 1 are stated"),
        (f"{POINT}/{INDEX}", set_of("shards", FIRST, "sha256", value="0" * 64), "altered or truncated"),
        (f"{POINT}/{INDEX}", set_of("shards", FIRST, value=...), "does not name the shards"),
        (f"{POINT}/{INDEX}", set_of("shards", FIRST, "rows", value=4), "does not name the shards"),
        (f"{POINT}/{INDEX}", set_of("shards", value=[]), "it has no shards"),
        (f"{POINT}/{INDEX}", set_of("shards", value={}), "does not name the shards"),
        (f"{POINT}/{INDEX}", set_of("width", value=5), "is not of dtype 'bfloat16' and width 5"),
        (f"{POINT}/{INDEX}", set_of("width", value=[4]), "is not of dtype"),
        (f"{POINT}/{INDEX}", set_of("dtype", value="float32"), "is not of dtype 'float32'"),
        (f"{POINT}/{INDEX}", set_of("hook_point", value="b.output"), "is about 'b.output'"),
        (f"{POINT}/{INDEX}", lambda index: [index], "not what its checksum was taken of"),
        (TOKENS_INDEX, set_of("files", GROUPS, value=...), "should name groups.json"),
        (TOKENS_INDEX, set_of("files", GROUPS, "bytes", value=10**18), "are stated"),
        (TOKENS_INDEX, set_of("files", value=None), "it has no files"),
    ],
)  # fmt: skip
def test_an_index_is_checked_as_a_whole(tmp_path: Path, index: str, change: Callable, said: str) -> None:
    """faults.md E1: types, sizes, counts, order, width and dtype, with a checksum that fits."""
    source = whole(tmp_path / "source")
    content = json.loads((source / index).read_bytes())
    del content["checksum"]
    new = change(content)
    text = signed(new) if isinstance(new, dict) else json.dumps(new).encode()
    (source / index).write_bytes(text)
    refused(f"file://{source}", tmp_path, said)


def replaced(source: Path, name: str, tensors: dict[str, torch.Tensor] | bytes) -> None:
    """A file of the attacker's, with a record that fits."""
    file = source / name
    file.write_bytes(tensors) if isinstance(tensors, bytes) else save_file(tensors, file)
    index, entry = (file.with_name(INDEX), "shards") if file.parent != source else (source / TOKENS_INDEX, "files")
    changed(
        source, str(index.relative_to(source)),
        lambda content: content | {entry: content[entry] | {file.name: content[entry][file.name] | file_entry(file)}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train.tokens.safetensors", {"offsets": torch.tensor([0, 4, 2, 6])}),
        ("train.tokens.safetensors", {"offsets": torch.tensor([0, 2, 7])}),
        ("train.tokens.safetensors", {"offsets": torch.tensor([-1, 2, 6])}),
        ("train.tokens.safetensors", {"offsets": torch.tensor([], dtype=torch.int64)}),
        ("train.tokens.safetensors", {"offsets": torch.tensor([0, 2, 6], dtype=torch.int32)}),
        ("test.tokens.safetensors", {"input_ids": torch.tensor([0, 1, 2, 3, 4, -5], dtype=torch.int32)}),
        ("test.tokens.safetensors", {"position": torch.full((6,), -1, dtype=torch.int32)}),
        ("test.tokens.safetensors", {"document": torch.ones(6, dtype=torch.int32)}),
        ("test.tokens.safetensors", {"input_ids": torch.zeros(6, 1, dtype=torch.int32)}),
        ("test.tokens.safetensors", {"keep": torch.ones(6, dtype=torch.uint8)}),
        ("test.tokens.safetensors", {"keep": torch.ones((), dtype=torch.bool)}),
        ("test.tokens.safetensors", {"more": torch.ones(1)}),
        ("groups.json", b"[1]"),
        ("groups.json", b"{}"),
        ("groups.json", b"[" * 100_000),
        ("validation.tokens.safetensors", b"no safetensors"),
        (f"{POINT}/{FIRST}", {"activations": torch.full((3, 4), torch.nan).bfloat16()}),
        (f"{POINT}/{FIRST}", {"activations": torch.ones(3, 4).bfloat16()}),
        (f"{POINT}/{FIRST}", {"activations": torch.ones(3, 5).bfloat16()}),
        (f"{POINT}/{FIRST}", {"activations": torch.ones(2, 4).bfloat16()}),
        (f"{POINT}/{FIRST}", {"activations": torch.ones(3, 4, dtype=torch.int16)}),
        (f"{POINT}/{FIRST}", {"norms": torch.full((3,), torch.nan)}),
        (f"{POINT}/{FIRST}", {"norms": torch.ones(3, dtype=torch.float64)}),
        (f"{POINT}/{FIRST}", {"more": torch.ones(1)}),
        (f"{POINT}/{FIRST}", b"no safetensors"),
    ],
)
def test_files_that_fit_their_records_must_be_a_harvest(tmp_path: Path, name: str, change: Any) -> None:
    """Offsets, token ids, documents, rows, width, dtype and norms; also what nobody reported."""
    source = whole(tmp_path / "source")
    old = activations() if name.startswith(str(POINT)) else sequences().tensors()
    replaced(source, name, change if isinstance(change, bytes) else old | change)
    refused(f"file://{source}", tmp_path, rf"is refused \(({re.escape(Path(name).name)}|groups\.json)")


def test_a_whole_harvest_arrives_byte_for_byte_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    source, cache = whole(tmp_path / "source"), tmp_path / "cache"
    name = source / str(POINT) / "test-00001.safetensors"
    content = name.read_bytes()
    name.unlink()
    with pytest.raises(OSError, match=r"activations\.harvest\.source=file://.* could not be reached"):
        fetch(f"file://{source}", cache, [POINT])
    name.write_bytes(content)
    fetch(f"file://{source}", cache, [POINT])
    (cache / "lock").unlink(missing_ok=True)
    assert everything(cache) == everything(source)
    assert len(ActivationStore(cache / str(POINT), "test")) == ROWS


@pytest.mark.parametrize("name", [TOKENS_INDEX, "groups.json", f"{POINT}/{INDEX}", f"{POINT}/{FIRST}"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero"), Path.mkdir])
def test_only_ordinary_files_are_copied(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """faults.md E5: a pipe hangs and /dev/zero never ends."""
    source = whole(tmp_path / "source")
    (source / name).unlink()
    make(source / name)
    refused(f"file://{source}", tmp_path, "is no ordinary file")


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
def test_only_ordinary_files_of_the_cache_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    for name in (f"{POINT}/{INDEX}", f"{POINT}/{FIRST}", "groups.json", "train.tokens.safetensors"):
        cache = whole(tmp_path / name.replace("/", "-"))
        (cache / name).unlink()
        make(cache / name)
        read = ActivationStore if name.startswith(str(POINT)) else Origins.read
        with pytest.raises(ValueError, match=r"expected a regular file|missing or truncated"):
            read(cache / str(POINT) if read is ActivationStore else cache, "train")


@pytest.mark.parametrize("url", ["nonsense://x", "memory://empty", "file:///nowhere/at/all"])
def test_a_source_without_this_harvest_is_left_alone(tmp_path: Path, url: str) -> None:
    if url.startswith("nonsense"):
        with pytest.raises(
            OSError, match=r"activations\.harvest\.source=nonsense://x could not be reached \(Protocol not known"
        ):
            fetch(url, tmp_path / "cache", [POINT])
    else:
        fetch(url, tmp_path / "cache", [POINT])
    assert not (tmp_path / "cache").exists()


NAMES = st.one_of(
    st.sampled_from([FIRST, "test-00000.safetensors", GROUPS, "train.tokens.safetensors", *OUTSIDE]),
    st.text(max_size=12),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "bytes": st.integers(-1, 400) | VALUES,
        "sha256": st.just("0" * 64) | VALUES,
        "rows": st.integers(0, 9) | VALUES,
    },
)
INDICES = st.dictionaries(
    st.sampled_from(["files", "shards", "hook_point", "dtype", "width", "checksum"]) | NAMES,
    VALUES | st.dictionaries(NAMES, RECORDS | VALUES, max_size=5),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(index=INDICES, content=st.binary(max_size=40), as_tokens=st.booleans(), fitting=st.booleans())
def test_no_index_makes_a_file_outside_the_cache(
    tmp_path_factory: pytest.TempPathFactory, index: dict, content: bytes, as_tokens: bool, fitting: bool
) -> None:
    """faults.md E1, for any JSON with a checksum that fits, and files that fit what it states of them."""
    tmp_path = tmp_path_factory.mktemp("any")
    source, name = whole(tmp_path / "source"), TOKENS_INDEX if as_tokens else f"{POINT}/{INDEX}"
    index.pop("checksum", None)
    entry, folder = ("files", source) if as_tokens else ("shards", source / str(POINT))
    if fitting and isinstance(index.get(entry), dict):
        for each in index[entry]:
            if each and "/" not in each and "\0" not in each and each not in (".", "..", INDEX, TOKENS_INDEX):
                (folder / each.encode(errors="ignore").decode()).write_bytes(content)
            stated = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            index[entry][each] = stated | ({} if as_tokens else {"rows": 3})
    (source / name).write_bytes(signed(index))
    before, cache = everything(tmp_path), tmp_path / "place" / "cache"
    with pytest.raises((ValueError, OSError)) as error:
        fetch(f"file://{source}", cache, [POINT])
    assert "\n" not in str(error.value)
    after = everything(tmp_path)
    assert {path: content for path, content in after.items() if not path.startswith("place/cache/")} == before
    shutil.rmtree(tmp_path)
