"""The tables of a sweep are those of its jobs, and nothing else."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atomlab.evaluation.sweep import finished_jobs, summarise_sweep
from tests.processes import ROOT

KEYS = ("d_sae", "r2_train", "r2", "r2_s_train", "r2_s", "r2_s_validation", "l0_train", "l0", "coherence", "dead_train")
KEYS += ("stability_pairwise", "stability_pairwise_random", "certified_level_4", "certified_level_4_signed")


def row(unit: str, number: float) -> dict[str, Any]:
    return {"unit": unit, "bands": [1, 2], "signed": False} | {key: number + i / 100 for i, key in enumerate(KEYS)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two widths with two seeds each, one failed job, and one that is finished without a table."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "multirun.yaml").write_text("steps: 5\nhydra:\n  secret: not shown\n")
    for number, (width, seed, state) in enumerate(
        [
            (1, 0, "finished"),
            (1, 1, "finished"),
            (2.5, 0, "finished"),
            (2.5, 1, "finished"),
            (4, 0, "failed"),
            (4, 1, "finished"),
        ]
    ):
        words = ["model=<b>tiny</b>", f"sae.expansion={width}", f"seed={seed}"]
        (tmp_path / "jobs" / f"{number}.json").write_text(json.dumps({"overrides": words, "state": state}))
        (tmp_path / str(number)).mkdir()
        if number < 5:
            rows = [row("atoms", 10 * width + seed), row("k-means + OMP", -1.0 - seed)]
            (tmp_path / str(number) / "results.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def test_a_row_is_a_setting_with_mean_and_range_over_seeds(sweep: Path) -> None:
    text = summarise_sweep(sweep)
    rows = json.loads((sweep / "results.json").read_text())["rows"]
    assert [one["unit"] for one in rows] == ["sae.expansion=1", "sae.expansion=2.5"]
    assert [one["seeds"] for one in rows] == [2, 2]
    for one, width in zip(rows, (1, 2.5), strict=True):
        for i, key in enumerate(KEYS):
            values = [10 * width + seed + i / 100 for seed in (0, 1)]
            wanted = {"value": sum(values) / 2, "low": min(values), "high": max(values)}
            assert one[key] == {name: pytest.approx(value) for name, value in wanted.items()}
        assert one["control_r2"]["value"] == pytest.approx(-1.5 + KEYS.index("r2") / 100)
        assert one["gap"]["value"] == pytest.approx(-0.01)
    assert "4 finished jobs, 2 settings. On validation vectors sae.expansion=2.5 has the largest" in text


def test_every_row_of_every_job_is_in_the_tidy_table(sweep: Path) -> None:
    summarise_sweep(sweep)
    with (sweep / "sweep.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    table = pq.read_table(sweep / "sweep.parquet").to_pylist()
    assert len(lines) == len(table) == 8
    for line, found in zip(lines, table, strict=True):
        assert (int(line["job"]), float(line["sae.expansion"]), line["unit"]) == (
            found["job"], found["sae.expansion"], found["unit"],
        )  # fmt: skip
        job = json.loads((sweep / line["job"] / "results.json").read_text())["rows"]
        own = next(one for one in job if one["unit"] == found["unit"])
        assert all(found[key] == own[key] for key in KEYS)


def test_the_page_holds_the_figure_and_no_foreign_markup(sweep: Path) -> None:
    words = json.loads((sweep / "jobs" / "0.json").read_text())
    words["overrides"][0] = "model=<script>x</script>"
    (sweep / "jobs" / "0.json").write_text(json.dumps(words))
    summarise_sweep(sweep)
    page = (sweep / "report.html").read_text()
    assert "<script>x</script>" not in page
    assert "secret" not in page
    assert list((sweep / "figures").glob("*.png"))


def test_one_job_is_named_by_all_its_words(sweep: Path) -> None:
    for number in range(1, 6):
        (sweep / "jobs" / f"{number}.json").unlink()
    ((number, varied, _),) = finished_jobs(sweep)
    assert (number, varied) == (0, {"model": "<b>tiny</b>", "sae.expansion": 1.0, "seed": 0.0})


def test_the_command_line_says_what_is_wrong(sweep: Path, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "atomlab.evaluation.sweep", *words]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return finished.returncode, finished.stdout + finished.stderr

    assert "sae.expansion=2.5" in run(str(sweep))[1]
    code, said = run(str(tmp_path / "nothing"))
    assert (code, said.count("\n")) == (2, 1)
    assert "nothing is no folder of a sweep: it has no jobs/" in said
    (sweep / "2" / "results.json").write_text("{")
    code, said = run(str(sweep))
    assert code == 2
    assert "2/results.json is damaged" in said
