"""What a wandb run says of itself (faults.md D11: an empty configuration and no name), read from real offline files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from atomlab import load_sae
from atomlab.evaluation import dashboard
from tests.offline_wandb import files_of, records
from tests.processes import ROOT, environment, one_sentence, run
from tests.tiny import OPTIONS


def file_of(folder: Path) -> Path:
    """The file of the newest offline run in a folder."""
    return files_of(folder)[-1]


Run = tuple[dict[str, Any], wandb_internal_pb2.RunRecord, list[wandb_internal_pb2.MetricRecord], list[dict[str, Any]]]


def read(folder: Path) -> Run:
    """Configuration, run, axes and history of the newest offline run in a folder."""
    file = file_of(folder)
    config: dict[str, Any] = {}
    runs, metrics, history = [], [], []
    for record in records(file):
        updates = [*record.config.update]
        kind = record.WhichOneof("record_type")
        if kind == "run":
            runs.append(record.run)
            updates += record.run.config.update
        if kind == "metric":
            metrics.append(record.metric)
        if kind == "history":
            history.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        config |= {update.key or "/".join(update.nested_key): json.loads(update.value_json) for update in updates}
    return config, runs[0], metrics, history


@pytest.fixture(scope="module")
def logged(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps, and one that goes on from it to step 30."""
    folder = tmp_path_factory.mktemp("wandb")
    for part in ("model", "text.txt"):
        (folder / part).symlink_to(tiny / part)
    words = [*OPTIONS, "logger=wandb", "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=5"]
    words += ["+callbacks.throughput.every=5"]
    mine = ["steps=20", "hydra.run.dir=runs/mine", "logger.logger.files={report: artifact, checkpoints: true}"]
    more = ["steps=30", "resume=runs/mine/checkpoints/last.ckpt", "hydra.run.dir=runs/more"]
    more += ["logger.logger.files.report=panel"]
    for own in (mine, more):
        finished = run(
            "train.py", *words, *own, cwd=folder, cache=tiny / "cache", env={"WANDB_RUN_GROUP": "of a sweep"}
        )
        assert finished.returncode == 0, finished.stderr
    return folder


def test_a_wandb_run_has_name_group_tags_and_the_whole_configuration(logged: Path) -> None:
    """Read from the file of a real offline run."""
    config, own, _, _ = read(logged / "runs" / "mine")
    assert own.display_name == "runs/mine"
    assert own.run_group == "of a sweep"
    assert "steps=20" in own.tags
    assert config["steps"] == 20
    assert config["sae"]["expansion"] == 2
    assert config["trainer"]["max_steps"] == 20


def test_a_resumed_run_is_the_same_wandb_run(logged: Path) -> None:
    _, first, _, _ = read(logged / "runs" / "mine")
    _, second, _, history = read(logged / "runs" / "more")
    assert first.run_id == second.run_id
    assert min(line["trainer/global_step"] for line in history if "train/loss" in line) > 19


def test_vectors_are_the_axis_of_every_chart_and_the_summary_keeps_the_best(logged: Path) -> None:
    _, _, metrics, history = read(logged / "runs" / "mine")
    by_name = {metric.name or metric.glob_name: metric for metric in metrics}
    assert by_name["*"].step_metric == "data/vectors"
    assert by_name["validation/r2_s"].summary.max
    trained = [line for line in history if "train/loss" in line]
    assert trained
    for line in trained:
        assert line["data/vectors"] == (line["trainer/global_step"] + 1) * 128 * 2  # steps from 0


def test_histograms_of_the_atoms_are_counts_of_all_of_them(logged: Path) -> None:
    _, _, _, history = read(logged / "runs" / "mine")
    lines = [line for line in history if any(key.startswith("dictionary/threshold") for key in line)]
    assert lines
    last: dict[str, dict[str, Any]] = {}
    for key, value in lines[-1].items():
        if key.startswith("dictionary/"):
            _, name, part = key.split("/")
            last.setdefault(name, {})[part] = value
    assert set(last) == {"threshold", "log10_firing", "coherence"}
    sae = load_sae(logged / "runs" / "mine" / "sae")
    for name, histogram in last.items():
        assert len(histogram["bins"]) == len(histogram["values"]) + 1 == 65
        assert sum(histogram["values"]) <= sae.d_sae
        assert name == "log10_firing" or sum(histogram["values"]) == sae.d_sae
    assert last["threshold"]["bins"][0] == pytest.approx(float(sae.threshold.detach().min()), rel=1e-4)
    assert last["coherence"]["bins"][-1] == pytest.approx(rows(logged)[0]["coherence"], rel=1e-4)


def test_the_closing_table_is_a_table(logged: Path) -> None:
    (file,) = (logged / "runs" / "mine").glob("wandb/offline-run-*/files/media/table/table_*.json")
    found = json.loads(file.read_text())
    wanted = rows(logged)
    assert [line[found["columns"].index("unit")] for line in found["data"]] == [row["unit"] for row in wanted]
    r2 = [line[found["columns"].index("r2_s")] for line in found["data"]]
    assert r2 == [pytest.approx(row["r2_s"]) for row in wanted]


def test_report_and_checkpoints_are_artifacts_on_request_and_the_report_a_panel(logged: Path) -> None:
    artifacts = {
        record.artifact.type: record.artifact
        for record in records(file_of(logged / "runs" / "mine"))
        if record.WhichOneof("record_type") == "artifact"
    }
    sent = {kind: {entry.path for entry in found.manifest.contents} for kind, found in artifacts.items()}
    assert {"report.html", "results.json", "results.csv"} <= sent["report"]
    assert any(path.startswith("figures/") for path in sent["report"])
    assert {"checkpoints/last.ckpt", "sae/cfg.json", "sae/sae_weights.safetensors"} <= sent["model"]
    (page,) = (logged / "runs" / "more").glob("wandb/offline-run-*/files/media/html/report_*.html")
    assert page.read_text(encoding="utf-8") == (logged / "runs" / "more" / "report.html").read_text(encoding="utf-8")
    more = records(file_of(logged / "runs" / "more"))
    kinds = {record.artifact.type for record in more if record.WhichOneof("record_type") == "artifact"}
    assert not kinds & {"report", "model"}


def exit_codes(folder: Path) -> list[int]:
    found = records(file_of(folder))
    return [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"]


def test_no_wandb_run_stays_unfinished(logged: Path, tiny: Path) -> None:
    """Neither that of a finished training, nor that of one that a fault ended (here a loss that is not finite)."""
    assert exit_codes(logged / "runs" / "mine") == exit_codes(logged / "runs" / "more") == [0]
    words = [*OPTIONS, "logger=wandb", "hydra.run.dir=runs/failed", "training.schedule.learning_rate=1e38"]
    failed = run("train.py", *words, cwd=logged, cache=tiny / "cache")
    assert failed.returncode != 0
    assert exit_codes(logged / "runs" / "failed") == [1]


def test_the_workspace_shows_what_a_run_logs(logged: Path) -> None:
    """Built and read back without a server; every name in it is one of the run's offline file."""
    built = dashboard.workspace("someone", "atomlab")._to_model().model_dump(by_alias=True)
    sections = built["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [name for name, _ in dashboard.SECTIONS]
    panels = [panel["config"] for section in sections for panel in section["panels"]]
    assert len(panels) == sum(len(panels) for _, panels in dashboard.SECTIONS)
    config, _, _, history = read(logged / "runs" / "mine")
    known = {key for line in history for key in line} | {"table"}
    known |= {key.rsplit("/", 1)[0] for key in known}  # histograms have parts

    def in_config(accessor: str) -> bool:
        value: Any = config
        for key in accessor.replace(".value", "", 1).split("."):
            value = value[key]
        return value is not None

    for panel in panels:
        if panel.get("xAxis") == "data/vectors":
            assert set(panel["metrics"]) <= known
        if "mediaKeys" in panel:
            assert set(panel["mediaKeys"]) <= known
        accessors = [panel.get(axis) for axis in ("xAxis", "yAxis", "zAxis")]
        accessors += [column["accessor"] for column in panel.get("columns") or []]
        for accessor in accessors:
            kind, _, name = str(accessor).partition(":")
            assert kind not in ("summary", "config") or (name in known if kind == "summary" else in_config(name)), name
    assert sum(str(panel).count("summary:") + str(panel).count("config:") for panel in panels) >= 10


def test_without_a_key_the_clicks_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(dashboard, "has_key", lambda: False)
    assert dashboard.main(["team/atomlab"]) == 0
    said = capsys.readouterr().out
    for name, panels in dashboard.SECTIONS:
        assert f"Add section, and name it {name}." in said
        assert said.count(f"In {name}: Add panels, ") == len(panels)
    assert dashboard.main(["a/b/c"]) == 2


def rows(logged: Path) -> list[dict[str, Any]]:
    return json.loads((logged / "runs" / "mine" / "results.json").read_text())["rows"]


def test_a_run_that_is_refused_leaves_no_folder(tiny: Path, tmp_path: Path) -> None:
    """The id of a wandb run is kept once the run begins, and not when it is made."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    words = [*OPTIONS, "logger=wandb", "hydra.run.dir=out", "layer=99"]
    one_sentence(run("train.py", *words, cwd=tmp_path, cache=tiny / "cache"))
    assert not (tmp_path / "out").exists()


UNREACHABLE = """
from atomlab.training.loggers import wandb_logger
logger = wandb_logger("run")
logger.log_hyperparams({"batch_size": 4, "trainer": {}})
logger.log_metrics({"train/loss": 1.5}, step=3)
logger.experiment.finish()
"""


def test_a_server_that_cannot_be_reached_costs_no_run(tmp_path: Path) -> None:
    """wandb's own error came after the harvest, before the training, with a stack trace."""
    closed = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "3"}
    env = environment(tmp_path / "cache") | closed | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    said = [line for line in finished.stderr.splitlines() if line.startswith("wandb: the server cannot be reached (")]
    assert len(said) == 1
    assert said[0].endswith("logging offline to run (upload later with `wandb sync`).")
    config, begun, _, history = read(tmp_path / "run")
    assert config["batch_size"] == 4
    assert (tmp_path / "run" / "wandb_run.txt").read_text().split()[0] == begun.run_id
    assert any(line.get("train/loss") == 1.5 for line in history)
