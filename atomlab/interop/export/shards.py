"""Writes a TSAE whose latents several processes hold as one SAELens folder, which no process ever has whole in memory."""

import json
import secrets
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from atomlab.files import UNFINISHED, atomic_write, safetensors_written, sha256
from atomlab.interop.export.save import write_config
from atomlab.interop.formats.saelens import CONFIG, WEIGHTS
from atomlab.interop.integrity import write_checksums
from atomlab.sae import ThresholdSAE

_BLOCK = 256  # rows of a matrix that are copied at a time
_ZEROS = 1 << 20  # bytes that are written at a time


def save_shared_sae(sae: ThresholdSAE, folder: Path, metadata: Mapping[str, object]) -> None:
    """Writes a TSAE of raw activations that several processes share; all of them call this together.

    Each of those that hold different latents writes its part to a file of its own, and the first process copies these into
    the one file, a block of rows at a time. `save` of the whole TSAE writes the same tensors.

    Args:
        sae: the own latents of the TSAE, in raw coordinates.
        folder: where the first process writes, on a disk that all of them see; that of the others is not used.
        metadata: as in `save`, of the first process.

    Raises:
        OSError: a process cannot write to the folder; in all processes.

    Cost: one write and one read of the parts, one write of the whole. Memory: the own part, and 256 rows of one matrix.
    """
    everyone, latents = sae.shard.groups.everyone, sae.shard.groups.latents
    token = everyone.gather_objects((str(folder.absolute()), secrets.token_hex(3)))[0]
    target, parts = Path(token[0]), Path(token[0]) / f"{UNFINISHED}parts-{token[1]}"
    try:
        with everyone.fails_together():  # nobody writes before the folder is there
            if everyone.rank == 0:
                parts.mkdir(parents=True)
        with everyone.fails_together():
            if sae.shard.groups.data.rank == 0:
                _write_part(sae, parts / f"{latents.rank}.safetensors")
        with everyone.fails_together():  # nobody reads before the file is there
            if everyone.rank == 0:
                _put_together(sae, [parts / f"{rank}.safetensors" for rank in range(latents.size)], target, metadata)
    finally:
        if everyone.rank == 0:
            shutil.rmtree(parts, ignore_errors=True)


def _write_part(sae: ThresholdSAE, file: Path) -> None:
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
    with safetensors_written(file):
        save_file({name: value.detach().float().cpu().contiguous() for name, value in weights.items()}, file)


def _put_together(sae: ThresholdSAE, parts: list[Path], folder: Path, metadata: Mapping[str, object]) -> None:
    """Copies the parts into one file, and writes cfg.json beside it."""
    d_in, d_sae = sae.d_in, sae.shard.d_sae
    shapes = {
        "W_dec": (d_sae, d_in),
        "W_enc": (d_in, d_sae),
        "b_dec": (d_in,),
        "b_enc": (d_sae,),
        "threshold": (d_sae,),
    }
    with atomic_write(folder / CONFIG) as config_file, atomic_write(folder / WEIGHTS) as weights_file:
        places = _write_header(weights_file, shapes)
        first = 0
        for part in parts:
            with safe_open(part, framework="numpy") as opened:
                own = opened.get_slice("b_enc").get_shape()[0]
                for name, shape in shapes.items():
                    whole = np.memmap(weights_file, "<f4", "r+", places[name], shape)
                    rows = opened.get_slice(name)
                    count = rows.get_shape()[0]
                    for start in range(0, count, _BLOCK):
                        block = rows[start : min(start + _BLOCK, count)]
                        if name == "W_enc":
                            whole[start : start + len(block), first : first + own] = block
                        else:
                            place = start + (0 if name == "b_dec" else first)
                            whole[place : place + len(block)] = block
                    whole.flush()
                first += own
        sizes = {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": sae.apply_b_dec_to_input}
        write_config(config_file, {"architecture": "jumprelu", **sizes}, metadata, sha256(weights_file))
    write_checksums(folder, (CONFIG, WEIGHTS))


def _write_header(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Makes a safetensors file of float32 tensors that are zero; returns where in the file each begins, in bytes.

    The format: the length of the header as 8 bytes, the header as JSON, the tensors one after another
    (https://github.com/huggingface/safetensors#format).
    """
    header, end, places = {}, 0, {}
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        places[name] = start
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, _ZEROS):  # a hole in their place would end the process on a full disk (SIGBUS)
            stream.write(bytes(min(_ZEROS, end - start)))
    return {name: 8 + len(text) + place for name, place in places.items()}
