"""The changes that benchmarks/fuzz_files.py makes to whole files: accidents, and what an attacker would write."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atomlab.interop.checkpoint_file import read_checkpoint_file, write_checkpoint_file
from benchmarks.fuzz_sharded import other_places, other_pointer, other_record

ALL = ("checkpoint", "sharded", "sae", "foreign sae", "npz")
SAFETENSORS = ("checkpoint", "sharded", "sae", "foreign sae")
Change = Callable[[Path, random.Random, Path], None]


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    Attributes:
        name: of it.
        formats: of the files that it can be made to.
        change: makes it, in a folder; the path is that of a file which code in a file would write.
        accidental: whether a checksum of the format should find it; nobody computed a new one.
    """

    name: str
    formats: tuple[str, ...]
    change: Change
    accidental: bool = True


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def weights_of(folder: Path) -> Path:
    """The file of the weights, whatever its format; of a sharded checkpoint the first one."""
    names = ("step-*/*.safetensors", "last.ckpt", "sae_weights.safetensors", "params.npz")
    return next(file for name in names for file in sorted(folder.glob(name)))


def unseal(folder: Path) -> None:
    """Takes the checksums away, as an attacker would."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    if (file := folder / "cfg.json").exists():
        config = json.loads(file.read_text())
        config["metadata"].pop("weights_sha256", None)
        file.write_text(json.dumps(config))


def bytes_changed(folder: Path, rng: random.Random, marker: Path) -> None:
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(file.read_bytes())
    place, length = rng.randrange(len(content)), rng.randint(1, 64)
    block = slice(place, place + length)
    match rng.randrange(7):
        case 0 | 1:
            for _ in range(rng.choice([1, 1, 1, 2, 8])):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        case 2:
            del content[place:]
        case 3:
            content += rng.randbytes(length)
        case 4:
            content[block] = bytes(len(content[block]))
        case 5:
            content[block] = rng.randbytes(len(content[block]))
        case _:
            del content[block]
    file.write_bytes(content)


def random_bytes(folder: Path, rng: random.Random, marker: Path) -> None:
    magic = rng.choice([b"", b"PK\3\4", b"\x80\2", b"\x93NUMPY", b"{", b"\x40\0\0\0\0\0\0\0{", b"\x1f\x8b"])
    unseal(folder)
    weights_of(folder).write_bytes(magic + rng.randbytes(rng.randrange(2000)))


def _header(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def lying_header(folder: Path, rng: random.Random, marker: Path) -> None:
    """A header of safetensors that claims what the file does not hold."""
    unseal(folder)
    file = weights_of(folder)
    header, data = _header(file)
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry, length = header[name], None
    match rng.randrange(10):
        case 0:
            entry["shape"] = rng.choice([[10**12, 10**6], [2**63], [-1, 4], [0], [10**18, 0], [], [1.5], "x", [[1]]])
        case 1:
            entry["dtype"] = rng.choice(["F64", "I8", "BOOL", "BF16", "F8_E4M3", "Z9", "", None, 7])
        case 2:
            entry["data_offsets"] = rng.choice([[0, 10**15], [-8, 0], [8, 0], [0, 0], [1, 5], None, [2**64, 2**65]])
        case 3:
            header[rng.choice(["../../x", "/etc/passwd", "a" * 10_000, "\0", "sae.W_dec\n"])] = dict(entry)
        case 4:
            header["__metadata__"] = rng.choice([{}, {"x": 1}, [], "x", {"state": "[" * 100_000}, None])
        case 5:
            length = rng.choice([2**63, 2**64 - 1, 10**9, 99_999_999, 0, 1])
        case 6:
            del header[name]
        case 7:
            header[name] = rng.choice([None, 3, [], {}, {"dtype": "F32"}])
        case 8:
            header = json.loads("[" * 50 + "]" * 50) if rng.random() < 0.5 else []  # type: ignore[assignment]
        case _:
            other = rng.choice([key for key in header if key != "__metadata__"])
            header[name], header[other] = header[other], header[name]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def pickled(folder: Path, rng: random.Random, marker: Path) -> None:
    unseal(folder)
    file, payload = weights_of(folder), Payload(marker)
    match rng.randrange(5):
        case 0:
            file.write_bytes(pickle.dumps(payload, rng.randrange(6)))
        case 1:
            torch.save(rng.choice([payload, {"state_dict": payload}, {"state_dict": {"sae.W_dec": payload}}]), file)
        case 2:
            torch.save({"W_dec": payload}, file, _use_new_zipfile_serialization=False)
        case 3:
            np.savez(file.with_suffix(".npz"), W_dec=np.array([payload], dtype=object), allow_pickle=True)
            file.with_suffix(".npz").replace(file)
        case _:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(rng.choice(["data.pkl", "archive/data.pkl", "W_dec.npy"]), pickle.dumps(payload))


def traversal(folder: Path, rng: random.Random, marker: Path) -> None:
    """Names that lead out of the folder, and files that are none."""
    unseal(folder)
    file = weights_of(folder)
    name = rng.choice([f"../../{marker.name}", str(marker), "..", ".", "", "a/../../b", "\\\\x\\y", "con"])
    match rng.randrange(5):
        case 0:
            array = io.BytesIO()
            np.save(array, np.ones(3, dtype=np.float32))
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(f"{name}.npy" if rng.random() < 0.5 else name or "x", array.getvalue())
        case 1:
            save_file({name or "x": torch.ones(3)}, file)
        case 2:
            file.unlink()
            file.symlink_to(rng.choice(["/dev/zero", "/dev/random", "/etc", "/proc/self/mem", "nowhere", file.name]))
        case 3:
            file.unlink()
            os.mkfifo(file)
        case _:
            (folder / "SHA256SUMS").write_text(f"{rng.randbytes(32).hex()}  {name}\n" * rng.choice([1, 3, 5000]))
            if rng.random() < 0.5 and (folder / "cfg.json").exists():
                (folder / "cfg.json").write_text("{}")


def other_tensors(folder: Path, rng: random.Random, marker: Path) -> None:
    """Whole files with valid checksums and the wrong content: shapes, dtypes, values, names."""
    unseal(folder)
    file = weights_of(folder)
    checkpoint, metadata = {}, None
    if file.suffix == ".ckpt":
        checkpoint = read_checkpoint_file(file)
        tensors = {name: value.clone().contiguous() for name, value in checkpoint["state_dict"].items()}
    elif file.suffix == ".npz":
        tensors = {name: torch.from_numpy(value).contiguous() for name, value in np.load(file).items()}
    else:
        tensors = {name: value.clone() for name, value in load_file(file).items()}
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    match rng.randrange(8):
        case 0:
            tensors[name] = torch.zeros([rng.choice([0, 1, 3, 7]) for _ in range(rng.randrange(4))])
        case 1:
            tensors[name] = value.to(
                rng.choice([torch.int64, torch.bool, torch.float16, torch.float64, torch.complex64])
            )
        case 2:
            value.view(-1)[rng.randrange(value.numel())] = rng.choice([torch.nan, torch.inf, -torch.inf, 3e38, -1e-40])
        case 3:
            del tensors[name]
        case 4:
            tensors[rng.choice(["extra", "W_skip", "sae.W_skip", "log_threshold", "scaling_factor"])] = torch.randn(3)
        case 5:
            tensors[name] = value.flatten()[: rng.randrange(value.numel())]
        case 6:
            tensors[name] = torch.zeros_like(value)
        case _:
            tensors[name] = value * 1e30 * 1e8
    if file.suffix == ".ckpt":
        write_checkpoint_file(checkpoint | {"state_dict": tensors}, file)
    elif file.suffix == ".npz":
        np.savez(file, **{key: each.numpy() for key, each in tensors.items()})  # type: ignore[arg-type]
    else:
        save_file({key: each.contiguous() for key, each in tensors.items()}, file, metadata)


def other_state(folder: Path, rng: random.Random, marker: Path) -> None:
    """Checkpoints with a valid digest whose parts have other types."""
    file = folder / "last.ckpt"
    checkpoint = read_checkpoint_file(file)
    strange = rng.choice([None, 0, -1, 1.5, "x", [], {}, (1,), {"a": {}}, [[]] * 50, float("nan"), 10**400])
    if rng.random() < 0.2:
        nested: Any = []
        for _ in range(rng.choice([50, 400])):
            nested = [nested]
        strange = nested
    key = rng.choice([*checkpoint, "sae.W_dec", "transform.mean"])
    if key in checkpoint:
        checkpoint[key] = strange
    else:
        checkpoint["state_dict"][key] = strange
    write_checkpoint_file(checkpoint, file)


def configuration(folder: Path, rng: random.Random, marker: Path) -> None:
    """A cfg.json of other types and of nonsense."""
    unseal(folder)
    file = folder / "cfg.json"
    config = json.loads(file.read_text())
    strange = rng.choice([None, 0, -1, 1.5, "x", [], {}, True, 10**30, "../../x", [1] * 1000, {"a": []}, "\0", "é"])
    match rng.randrange(6):
        case 0 | 1 | 2:
            config[rng.choice([*config, "k", "activation_fn", "d_out", "hook_point", "normalize_decoder"])] = strange
            file.write_text(json.dumps(config))
        case 3:
            config["metadata"][rng.choice([*config["metadata"], "weights_sha256", "atomlab_identity"])] = strange
            file.write_text(json.dumps(config))
        case 4:
            file.write_text(
                rng.choice(["[" * 100_000, '{"a":' * 5000, "", "null", "[]", '"x"', "NaN", "{", "\ufeff{}"])
            )
        case _:
            file.write_bytes(rng.choice([b"\xff\xfe{}", b"\0" * 100, rng.randbytes(200)]))


KINDS = (
    Kind("bytes flipped, cut, added", ALL, bytes_changed),
    Kind("random bytes", ALL, random_bytes, accidental=False),
    Kind("lying headers", SAFETENSORS, lying_header, accidental=False),
    Kind("bytes flipped, cut, added", ALL, bytes_changed),
    Kind("pickles with code", ALL, pickled, accidental=False),
    Kind("paths that lead out, no files", ALL, traversal, accidental=False),
    Kind("wrong shapes, dtypes, values", ALL, other_tensors, accidental=False),
    Kind("wrong state", ("checkpoint",), other_state, accidental=False),
    Kind("wrong record", ("sharded",), other_record, accidental=False),
    Kind("wrong pointer", ("sharded",), other_pointer, accidental=False),
    Kind("wrong places", ("sharded",), other_places, accidental=False),
    Kind("wrong configuration", ("sae", "foreign sae"), configuration, accidental=False),
)
