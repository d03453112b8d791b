"""What is chosen by which vectors: early choices by training vectors, runs by validation vectors, nothing by the test split."""

import json
from pathlib import Path

import pytest

from tests.processes import run
from tests.tiny import OPTIONS
from tests.training.logged import last_values


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of train.py that notes which splits it reads, and when."""
    folder = tmp_path_factory.mktemp("selection")
    words = [*OPTIONS, "sample_sizes.measured=5000", "trainer.val_check_interval=15", f"hydra.run.dir={folder}/run"]
    finished = run("tests/reads.py", *words, cwd=tiny, cache=tiny / "cache", env={"READS": str(folder / "reads")})
    assert finished.returncode == 0, finished.stderr
    return folder


def test_the_test_split_is_read_by_the_closing_table_alone(folder: Path) -> None:
    """faults.md D4: every run read it in a stage of its own, and returned its R² for a sweep to choose by."""
    reads = (folder / "reads").read_text().split()
    assert reads.count("built") == reads.count("table") == 1
    built, table = reads.index("built"), reads.index("table")
    assert set(reads[:built]) == {"train"}  # calibration of thresholds and the choice of the implementation
    assert set(reads[built + 1 : table]) == {"train", "validation"}
    assert "test" in reads[table:]


def test_the_objective_is_the_last_validation_and_the_tables_number_under_that_name(folder: Path) -> None:
    """faults.md D4 and D8: the interval of 15 steps does not divide 40, so the last validation in training is of step 30;
    the objective is of the finished TSAE, and of the same vectors as the table's.
    """
    objective = float((folder / "run" / "objective.txt").read_text())
    assert objective == pytest.approx(last_values(folder / "run")["validation/r2_s"], rel=1e-6)
    atoms = json.loads((folder / "run" / "results.json").read_text())["rows"][0]
    assert objective == pytest.approx(atoms["r2_s_validation"], rel=1e-5)
    assert objective != pytest.approx(atoms["r2_s"], rel=1e-3)


def test_the_report_names_the_seed_of_the_run_and_that_of_its_data(folder: Path) -> None:
    """faults.md D6."""
    provenance = json.loads((folder / "run" / "results.json").read_text())["provenance"]
    assert (provenance["seed"], provenance["data seed"]) == ("0", "0")
