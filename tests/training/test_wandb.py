"""What a wandb run says of itself (faults.md D11: an empty configuration and no name)."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2

from tests.processes import run
from tests.tiny import OPTIONS


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


def test_a_wandb_run_has_its_folders_name_and_the_whole_configuration(tiny: Path, tmp_path: Path) -> None:
    """Read from the file of a real offline run."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    words = [*OPTIONS, "logger=wandb", "steps=5", "hydra.run.dir=runs/mine"]
    finished = run("train.py", *words, cwd=tmp_path, cache=tiny / "cache")
    assert finished.returncode == 0, finished.stderr
    (file,) = (tmp_path / "runs" / "mine").glob("wandb/offline-run-*/*.wandb")
    names, config = [], {}
    for record in records(file):
        updates = [*record.config.update]
        if record.WhichOneof("record_type") == "run":
            names.append(record.run.display_name)
            updates += record.run.config.update
        config |= {update.key or "/".join(update.nested_key): json.loads(update.value_json) for update in updates}
    assert names[0] == "runs/mine"
    assert config["steps"] == 5
    assert config["sae"]["expansion"] == 2
    assert config["trainer"]["max_steps"] == 5
