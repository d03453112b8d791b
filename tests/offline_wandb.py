"""The records of wandb's offline files, read through its own protobuf classes: wandb 0.31 has no reader any more."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2


def files_of(folder: Path) -> list[Path]:
    """The files of the offline runs of a run folder, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Of wandb's file: LevelDB's log format, blocks of 32 KiB with parts of records, behind a header of 7 bytes."""
    data, block, at, parts = file.read_bytes(), 1 << 15, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""
