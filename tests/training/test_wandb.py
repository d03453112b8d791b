"""What a wandb run says of itself (faults.md D11: an empty configuration and no name)."""

import json
from pathlib import Path

from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from tests.processes import run
from tests.tiny import OPTIONS


def test_a_wandb_run_has_its_folders_name_and_the_whole_configuration(tiny: Path, tmp_path: Path) -> None:
    """Read from the file of a real offline run."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    words = [*OPTIONS, "logger=wandb", "steps=5", "hydra.run.dir=runs/mine"]
    finished = run("train.py", *words, cwd=tmp_path, cache=tiny / "cache")
    assert finished.returncode == 0, finished.stderr
    (file,) = (tmp_path / "runs" / "mine").glob("wandb/offline-run-*/*.wandb")
    store, names, config = DataStore(), [], {}
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        updates = [*record.config.update]
        if record.WhichOneof("record_type") == "run":
            names.append(record.run.display_name)
            updates += record.run.config.update
        config |= {update.key or "/".join(update.nested_key): json.loads(update.value_json) for update in updates}
    assert names[0] == "runs/mine"
    assert config["steps"] == 5
    assert config["sae"]["expansion"] == 2
    assert config["trainer"]["max_steps"] == 5
