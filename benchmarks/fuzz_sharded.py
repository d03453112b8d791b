"""The changes that benchmarks/fuzz_files.py makes to sharded checkpoints: to the record, to the file that points to it, and to
the places of the pieces."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atomlab.files import sha256
from atomlab.groups import ALONE
from atomlab.interop.sharded_checkpoint import save_sharded

_PLACES = "DCP_SHARDING_INFO"  # of torch.distributed.checkpoint: where in the whole the tensors of a file belong
_STRANGE: list[Any] = [
    None, 0, -1, 1.5, "x", "", [], {}, True, [[]] * 50, {"a": {}}, 2**63, 2**70, 10**400, float("nan"), "../../x", "\0", "é\n",
    [1] * 5000, [2**40, 3], [-1, 6], [10, 6, 1], [0], [2**62, 0], "quint8", "float8_e4m3fn", "complex64", "Tensor", "nn",
    {"__atomlab__": "tensor", "path": "gone"}, {"__atomlab__": "mapping", "items": [[[], 1]]}, {"__atomlab__": "tuple"},
]  # fmt: skip


def write_sharded(checkpoint: dict[str, Any], folder: Path) -> None:
    """Writes a sharded checkpoint of two files, as two processes would."""
    own = {name: value.clone() for name, value in checkpoint["state_dict"].items()}  # which share no memory
    save_sharded(checkpoint | {"state_dict": own}, {"state_dict/sae.W_dec": 0}, folder, folder / "last.ckpt", ALONE)
    (file,) = _shards(folder)
    tensors, name = load_file(file), "state_dict/sae.W_dec"
    whole, places = tensors.pop(name), {key: {"saved_offsets": [0] * value.ndim} for key, value in tensors.items()}
    for number, part in enumerate(whole.chunk(2)):
        rest = tensors if number == 0 else {}
        own = (places if number == 0 else {}) | {name: {"saved_offsets": [number * len(whole.chunk(2)[0]), 0]}}
        save_file(
            {**rest, name: part.contiguous()}, file.with_name(f"shard-{number}.safetensors"), {_PLACES: json.dumps(own)}
        )
    file.unlink()
    record = json.loads(_record(folder).read_text())
    _record(folder).write_text(json.dumps(record | {"files": {shard.name: "" for shard in _shards(folder)}}))
    reseal(folder)


def reseal(folder: Path) -> None:
    """Puts the checksums of the files into the record, and that of the record into the pointer, as an attacker would."""
    try:
        record, pointer = json.loads(_record(folder).read_text()), json.loads((folder / "last.ckpt").read_text())
        if isinstance(record["files"], dict):
            record["files"] |= {shard.name: sha256(shard) for shard in _shards(folder) if shard.name in record["files"]}
            _record(folder).write_text(json.dumps(record))
    except (ValueError, LookupError, TypeError, OSError, RecursionError):
        pass  # what is no record keeps its bytes
    try:
        pointer = json.loads((folder / "last.ckpt").read_text())
        (folder / "last.ckpt").write_text(json.dumps(pointer | {"sha256": sha256(_record(folder))}))
    except (ValueError, TypeError, OSError, RecursionError):
        pass


def other_record(folder: Path, rng: random.Random, marker: Path) -> None:
    """Records of other types and of nonsense."""
    record = json.loads(_record(folder).read_text())
    strange = rng.choice(_STRANGE)
    if rng.random() < 0.1:
        for _ in range(rng.choice([50, 400, 900])):
            strange = [strange]
    tensor = rng.choice(sorted(record["tensors"]))
    match rng.randrange(8):
        case 0:
            record[rng.choice(sorted(record))] = strange
        case 1:
            record["files"][rng.choice([*record["files"], "../x.safetensors", "x.safetensors", "\0"])] = strange
        case 2 | 3 | 4:
            record["tensors"][tensor][rng.choice(["shape", "dtype", "dimension"])] = strange
        case 5:
            record["tensors"][rng.choice([tensor, "gone", "state_dict/sae.W_skip"])] = strange
        case 6:
            inside = record["rest"] if rng.random() < 0.5 else record["rest"]["state_dict"]
            inside[rng.choice(sorted(inside))] = strange
        case _:
            texts = ["[" * 100_000, '{"a":' * 5000, "", "null", "[]", "NaN", "{", " " * (1 << 25), '{"files": 1}']
            _record(folder).write_text(rng.choice(texts))
            return
    _record(folder).write_text(json.dumps(record))


def other_pointer(folder: Path, rng: random.Random, marker: Path) -> None:
    """Files that point elsewhere, and of nonsense."""
    pointer = json.loads((folder / "last.ckpt").read_text())
    names = ["..", ".", "/etc", "step-3/../..", f"step-{marker.name}", "step-" + "x" * 3000, "step-\n", str(marker)]
    pointer[rng.choice(sorted(pointer))] = rng.choice([*_STRANGE[:20], *names])
    (folder / "last.ckpt").write_text(json.dumps(pointer))


def other_places(folder: Path, rng: random.Random, marker: Path) -> None:
    """Pieces that leave holes, overlap, or lie nowhere."""
    file = rng.choice(_shards(folder))
    tensors, places = load_file(file), _places(file)
    name = rng.choice(sorted(tensors))
    match rng.randrange(5):
        case 0:
            places[name] = rng.choice(_STRANGE)
        case 1:
            places[name]["saved_offsets"] = rng.choice(
                [*_STRANGE, [1, 0], [5, 0], [0, 5], [2**62, 2**62], [0, 0, 0], ["0", 0]]
            )
        case 2:
            del places[name]
        case 3:
            tensors[name] = tensors[name][1:].contiguous()
        case _:
            tensors[name] = torch.cat([tensors[name], tensors[name]])
    text = rng.choice(["[]", "{", "1", "null"]) if rng.random() < 0.1 else json.dumps(places)
    save_file(tensors, file, {_PLACES: text})


def _places(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()[_PLACES])


def _record(folder: Path) -> Path:
    (found,) = folder.glob("step-*")
    return found / "record.json"


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*/*.safetensors"))
