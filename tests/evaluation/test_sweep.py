"""The tables of a sweep are those of its jobs, and nothing else."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from atomlab.evaluation.sweep import summarise_sweep
from atomlab.evaluation.sweeps.agreement import agreement
from atomlab.evaluation.sweeps.capacity import critical_rows, heat_maps, predictions
from atomlab.evaluation.sweeps.jobs import finished_jobs
from atomlab.identity import FORMAT, write_identity
from atomlab.interop.checkpoint_file import write_checkpoint_file
from atomlab.sae import InputTransform, ThresholdSAE
from tests.processes import ROOT, environment
from tests.training.test_wandb import file_of, records

KEYS = ("d_sae", "r2_train", "r2", "r2_s_train", "r2_s", "r2_s_validation", "l0_train", "l0", "coherence", "dead")
KEYS += ("stability_pairwise", "stability_pairwise_random", "certified_level_1", "certified_level_4")
KEYS += ("certified_level_4_signed",)


def row(unit: str, number: float) -> dict[str, Any]:
    return {"unit": unit, "bands": [1, 2], "signed": False} | {key: number + i / 100 for i, key in enumerate(KEYS)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two widths with two seeds each, one failed job, and one that is finished without a table."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "multirun.yaml").write_text("hydra:\n  secret: not shown\nsteps: 5\nseed: 0\n")
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


def test_jobs_that_missed_their_sparsity_are_named(sweep: Path) -> None:
    """A cell whose thresholds could not be set has more atoms a vector than the others, and must not pass for one of them."""
    for number, target in ((0, 10.0), (1, 11.0), (2, 20.0), (3, None)):
        file = sweep / str(number) / "results.json"
        found = json.loads(file.read_text())
        sparsity = {} if target is None else {"target": target}
        file.write_text(json.dumps(found | {"identity": {"training": {"sparsity": sparsity}}}))
    text = summarise_sweep(sweep)
    l0 = row("atoms", 25.0)["l0"]  # of job 2; those of jobs 0 and 1 are their targets
    assert (
        f"more than 25% off its target in sae.expansion=2.5 (L0 {l0:.1f}, target 20): left out of the laws of capacity."
        in text
    )
    assert "off its target" not in summarise_sweep(_without(sweep, 2))


def _without(sweep: Path, number: int) -> Path:
    (sweep / "jobs" / f"{number}.json").unlink()
    return sweep


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
    assert "steps: 5" in page
    assert list((sweep / "figures").glob("*.png"))


def test_one_job_is_named_by_all_its_words(sweep: Path) -> None:
    for number in range(1, 6):
        (sweep / "jobs" / f"{number}.json").unlink()
    (job,) = finished_jobs(sweep)
    assert (job.number, job.varied) == (0, {"model": "<b>tiny</b>", "sae.expansion": 1.0, "seed": 0.0})


def check_wandb(sweep: Path) -> None:
    """The analysis as an offline run of wandb: group, tables with the rows of the page, plots of them, and its figures."""
    found = list(records(file_of(sweep)))
    (own,) = (record.run for record in found if record.WhichOneof("record_type") == "run")
    assert (own.project, own.run_group, own.job_type) == ("mine", sweep.name, "sweep")
    assert [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"] == [0]
    lines = [record.history for record in found if record.WhichOneof("record_type") == "history"]
    keys = {(item.key or "/".join(item.nested_key)) for line in lines for item in line.item}
    for name in ("settings", "jobs", "frontier_table", "capacity_table", "figures/r-in-the-s-norm-against-atoms"):
        assert any(key.startswith(f"sweep/{name}") for key in keys), (name, sorted(keys))
    (file,) = sweep.glob("wandb/offline-run-*/files/media/table/sweep/settings_*.json")
    table, rows = json.loads(file.read_text()), json.loads((sweep / "results.json").read_text())["rows"]
    for name, wanted in (("unit", [row["unit"] for row in rows]), ("r2_s", [row["r2_s"]["value"] for row in rows])):
        assert [line[table["columns"].index(name)] for line in table["data"]] == wanted


def grid(folder: Path, widths: Sequence[int], counts: Sequence[int], noise: float = 0.0) -> Path:
    """A sweep over atoms and vectors with two seeds, whose losses follow known laws, and a surrogate beside each cell.

    In sample R² = ½ + ¼ log(atoms / vectors^.9); the held-out loss is .1 + 4 atoms^−.3 vectors^−.2.
    """
    (folder / "jobs").mkdir(parents=True)
    cells = [(n, count, seed) for n in widths for count in counts for seed in (0, 1)]
    for number, (n, count, seed) in enumerate(cells):
        words = [f"sae.expansion={n / 4}", f"my.vectors={count}", f"seed={seed}"]
        (folder / "jobs" / f"{number}.json").write_text(json.dumps({"overrides": words, "state": "finished"}))
        (folder / str(number)).mkdir()
        loss = (0.1 + 4 * n**-0.3 * count**-0.2) * (1 + noise * (-1) ** seed)
        own = row("atoms", 0.5) | {"d_sae": n, "samples_fitted": count, "l0": 20.0, "r2_s": 1 - loss}
        own |= {"r2_s_train": 0.5 + 0.25 * math.log(n / count**0.9)}
        null = own | {"unit": "Gaussian TSAE on its own", "r2_s": 0.01 * n + 0.001 * seed}
        (folder / str(number) / "results.json").write_text(json.dumps({"rows": [own, null]}))
    return folder


def test_a_grid_of_atoms_and_vectors_gives_back_its_laws(tmp_path: Path) -> None:
    widths, counts = (50, 100, 200, 400, 800, 1600), (100, 400, 1600)
    folder = grid(tmp_path / "grid", widths, counts)
    text = summarise_sweep(folder)
    found = json.loads((folder / "results.json").read_text())
    (row_of_half,) = (one for one in found["critical"] if one["unit"] == "atoms" and one["target"] == 0.5)
    assert row_of_half["exponent"] == {name: pytest.approx(0.9) for name in ("value", "low", "high")}
    assert row_of_half["critical"] == [[count, pytest.approx(count**0.9)] for count in counts]
    (law,) = found["law"]
    assert law["held_back"] == "1,600 atoms, 1,600 vectors, L0 20.0"
    assert law["cells"] == len(widths) * len(counts) - 1
    assert (law["of_atoms"]["value"], law["of_vectors"]["value"]) == (
        pytest.approx(0.3, 0.01),
        pytest.approx(0.2, 0.01),
    )
    assert law["predicted"]["value"] == pytest.approx(law["measured"], rel=1e-3)
    assert f"predicts {law['predicted']['value']:.3f}" in text
    assert f"measured {law['measured']:.3f}" in text
    page = (folder / "report.html").read_text()
    assert "How many atoms an in-sample R² needs" in page
    assert "The capacity null (data as dictionary) was not measured: add nulls=[data,gaussian]" in page
    assert {
        "r-in-the-s-norm-over-atoms-and-training-vectors",
        "atoms-that-an-in-sample-r-in-the-s-norm-needs-against-training-vectors",
        "the-scaling-law-of-the-held-out-loss",
    } <= {file.stem for file in (folder / "figures").glob("*.png")}


@pytest.mark.parametrize("missed", [{7}, {0, 5, 10}, set(range(36))])
def test_a_job_that_missed_its_sparsity_bends_no_law(tmp_path: Path, missed: set[int]) -> None:
    """The laws are those of the sweep without these jobs, whatever they measured; where none is left there is no law."""
    folder = grid(tmp_path / "grid", (50, 100, 200, 400, 800, 1600), (100, 400, 1600))
    for number in range(36):
        file = folder / str(number) / "results.json"
        found = json.loads(file.read_text())
        if number in missed:
            found["rows"][0] |= {"l0": 31.0, "r2_s": 0.9, "r2_s_train": 0.99}
        file.write_text(json.dumps(found | {"identity": {"training": {"sparsity": {"target": 20.0}}}}))
    text = summarise_sweep(folder)
    laws = {key: json.loads((folder / "results.json").read_text())[key] for key in ("critical", "law")}
    assert ("off its target" in text, bool(laws["law"])) == (True, len(missed) < 36)
    if len(missed) < 36:
        for number in missed:
            _without(folder, number)
        summarise_sweep(folder)
        assert laws == {key: json.loads((folder / "results.json").read_text())[key] for key in laws}


def test_a_heat_map_has_the_mean_over_seeds_of_each_cell_and_of_the_null(tmp_path: Path) -> None:
    jobs = finished_jobs(grid(tmp_path / "grid", (8, 16), (100, 200, 400)))
    counts, sizes, grids = heat_maps(jobs[:-2])["all jobs"]  # the last cell is missing
    assert (counts, sizes) == ([100, 200, 400], [8, 16])
    assert set(grids) == {
        f"{data}, {split}" for data in ("atoms", "Gaussian surrogate") for split in ("in sample", "held out")
    }
    null = grids["Gaussian surrogate, held out"]
    assert null[0].tolist() == [pytest.approx(0.0805)] * 3
    assert null[1, :2].tolist() == [pytest.approx(0.1605)] * 2
    assert math.isnan(null[1, 2])


def test_a_sweep_without_a_grid_says_so(sweep: Path, tmp_path: Path) -> None:
    jobs = finished_jobs(grid(tmp_path / "grid", (8, 16), (100,)))
    assert heat_maps(jobs) == {}
    assert all("not enough cells" in one["note"] for one in critical_rows(jobs))
    ((_, found),) = predictions(jobs).values()
    assert "not enough cells" in str(found)
    summarise_sweep(sweep)
    assert "need several of both; this sweep has numbers of atoms: 4" in (sweep / "report.html").read_text()


def test_atoms_that_another_seed_finds_again_agree(tmp_path: Path) -> None:
    """The second seed has the same atoms in another order and length; the third has half of them."""
    jobs = finished_jobs(grid(tmp_path / "grid", (64,), (100,)))
    atoms = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(64, 48, generator=torch.Generator().manual_seed(1))
    fresh[::2] = atoms[::2]
    jobs = [jobs[0], replace(jobs[1], folder=tmp_path / "b"), replace(jobs[1], folder=tmp_path / "c")]
    for job, dictionary in zip(jobs, (atoms, 3 * atoms.flip(0), fresh), strict=True):
        sae = ThresholdSAE(48, 64)
        sae.W_dec.data = dictionary
        state = {f"sae.{name}": value for name, value in sae.state_dict().items()}
        state |= {f"transform.{name}": value for name, value in InputTransform.identity(48).state_dict().items()}
        parts = {"state_dict": state, "optimizer_states": [], "loops": {}, "global_step": 1}
        (job.folder / "checkpoints").mkdir(parents=True)
        write_checkpoint_file(parts, job.folder / "checkpoints" / "last.ckpt")
        write_identity(job.folder, {"format": FORMAT})
    missing: list[str] = []
    found = agreement(jobs, missing)
    assert missing == []
    assert found["agreement_share"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert found["agreement"]["high"] == pytest.approx(1)
    assert 0.2 < found["agreement_random"] < 0.5
    (jobs[2].folder / "checkpoints" / "last.ckpt").unlink()
    assert agreement(jobs, missing) == {}
    assert "is left out: The checkpoint" in missing[0]


def test_the_command_line_says_what_is_wrong(sweep: Path, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "atomlab.evaluation.sweep", *words]
        kept = environment(tmp_path / "cache")
        finished = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
        return finished.returncode, finished.stdout + finished.stderr

    (sweep / "0" / "wandb_run.txt").write_text("0a1b2c3d\nmine\n")  # as a job that logged to wandb leaves it
    assert "sae.expansion=2.5" in run(str(sweep))[1]
    check_wandb(sweep)
    code, said = run(str(tmp_path / "nothing"))
    assert (code, said.count("\n")) == (2, 1)
    assert "nothing is no folder of a sweep: it has no jobs/" in said
    (sweep / "2" / "results.json").write_text("{")
    code, said = run(str(sweep))
    assert code == 2
    assert "2/results.json is damaged" in said
