"""A sweep whose jobs have two processes each, under the launchers: Lightning starts the second one by the job's command line."""

import json
from pathlib import Path

import pytest

from atomlab.launch.sweep_folder import statuses
from tests.launch.test_sweeps import LAUNCHERS
from tests.offline_wandb import files_of, records
from tests.processes import Started
from tests.tiny import OPTIONS

WORDS = [
    "-m", *OPTIONS, "steps=4", "sae.expansion=1,2", "logger=wandb", "hydra.sweep.dir=out", "trainer=ddp",
    "trainer.accelerator=cpu", "trainer.devices=2", "trainer.log_every_n_steps=2", "sample_sizes.measured=64",
    "+callbacks.probe._target_=tests.launch.probe.Probe",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_both_processes_of_a_job_train_the_same_and_log_once(launcher: str, tiny: Path, tmp_path: Path) -> None:
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    probe = f"+callbacks.probe.folder={tmp_path}/probe"  # a further process has another output folder
    finished = Started("train.py", *WORDS, probe, *LAUNCHERS[launcher], cwd=tmp_path, cache=tiny / "cache").wait(900)
    assert finished.returncode == 0, finished.stderr
    assert [status.state for status in statuses(tmp_path / "out").values()] == ["finished", "finished"]
    for job, d_sae in (("0", 32), ("1", 64)):
        folder = tmp_path / "out" / job
        first, second = (json.loads((tmp_path / "probe" / f"{d_sae}-{rank}.json").read_text()) for rank in (0, 1))
        assert first == second
        assert (first["world_size"], first["d_sae"], first["steps"]) == (2, d_sae, 4)
        (file,) = files_of(folder)
        found = list(records(file))
        (own,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
        assert (own.display_name, own.run_group) == (f"out/{job}", "out")
        updates = [update for record in found for update in record.config.update]
        config = {update.key: json.loads(update.value_json) for update in [*own.config.update, *updates]}
        assert config["sae"]["expansion"] == d_sae / 32
        assert config["trainer"]["devices"] == 2
        history = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in found
            if record.WhichOneof("record_type") == "history"
        ]
        (measured,) = [line for line in history if "validation/r2_s" in line]
        assert measured["data/vectors"] == 128 * 4  # the batch is that of both processes together
