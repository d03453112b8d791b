"""What exists is never written over, and no two runs share a folder (faults.md A8, C6, D10)."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.processes import Started, one_sentence, run
from tests.test_config import CONF
from tests.tiny import OPTIONS

SHORT = ("steps=5", "logger=none")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.fixture
def work(tiny: Path, tmp_path: Path) -> Path:
    """A working folder of its own beside the tiny model and its cache."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [["hydra.run.dir=old"], ["-m", "sae.expansion=1,2", "hydra.sweep.dir=old"]])
def test_a_folder_that_is_not_empty_is_refused_before_anything_is_written(words, tiny: Path, work: Path) -> None:
    """A8: an existing hydra.run.dir was written over without a word; the same for a sweep."""
    (work / "old").mkdir()
    (work / "old" / "notes.txt").write_text("mine")
    before = listing(work / "old")
    said = one_sentence(run("train.py", words[0], *OPTIONS, *SHORT, *words[1:], cwd=work, cache=tiny / "cache"))
    assert "=old exists and is not empty, and nothing is written over: give a new folder" in said
    assert listing(work / "old") == before
    assert sorted(path.name for path in work.iterdir()) == ["model", "old", "text.txt"]


def test_of_two_runs_at_once_one_gets_the_folder(tiny: Path, work: Path) -> None:
    """A8, and the next case: runs, not sweeps, that are started in the same instant."""
    words = [*OPTIONS, *SHORT, "hydra.run.dir=same"]
    with ThreadPoolExecutor(2) as pool:
        both = list(
            pool.map(lambda seed: run("train.py", *words, f"seed={seed}", cwd=work, cache=tiny / "cache"), (0, 1))
        )
    won, lost = sorted(both, key=lambda finished: finished.returncode)
    assert won.returncode == 0, won.stderr
    assert "hydra.run.dir=same exists and is not empty" in one_sentence(lost)
    seed = next(word for word in won.args if word.startswith("seed="))
    assert f"seed={OmegaConf.load(work / 'same' / '.hydra' / 'config.yaml').seed}" == seed
    assert seed in OmegaConf.load(work / "same" / ".hydra" / "overrides.yaml")


def test_two_jobs_of_a_sweep_do_not_share_a_folder(tiny: Path, work: Path) -> None:
    """Not reported: `hydra.sweep.subdir` that does not tell jobs apart."""
    words = ["-m", *OPTIONS, *SHORT, "seed=0,1", "hydra.sweep.dir=out", "hydra.sweep.subdir=one"]
    finished = run("train.py", *words, cwd=work, cache=tiny / "cache")
    assert finished.returncode == 2
    assert "hydra.run.dir=" in finished.stderr
    assert "exists and is not empty" in finished.stderr
    assert OmegaConf.load(work / "out" / "one" / ".hydra" / "config.yaml").seed == 0


def test_a_study_goes_on_in_its_folder_with_the_same_configuration_only(tiny: Path, work: Path) -> None:
    study = ["study.controls=[]", "study.certify=false", "study.loss=false", "study.browser=null"]
    words = [*(word for word in OPTIONS if word != "logger=csv"), "steps=5", *study, "hydra.run.dir=study"]
    first = run("evaluate.py", *words, cwd=work, cache=tiny / "cache")
    assert first.returncode == 0, first.stderr
    said = one_sentence(run("evaluate.py", *words, "steps=6", cwd=work, cache=tiny / "cache"))
    assert "hydra.run.dir=study holds a run with steps=5, and now it is 6" in said
    assert OmegaConf.load(work / "study" / ".hydra" / "config.yaml").steps == 5
    again = run("evaluate.py", *words, cwd=work, cache=tiny / "cache")
    assert again.returncode == 0, again.stderr


RANKED = {
    "torchrun": lambda rank: {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617", "TORCHELASTIC_RUN_ID": "none",
    },
    "srun": lambda rank: {
        "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": "29618",
    },
}  # fmt: skip


@pytest.mark.parametrize("by", RANKED)
def test_only_the_first_process_leaves_a_folder(by: str, tiny: Path, work: Path) -> None:
    """C6: under srun or torchrun every process left one."""
    words = [*OPTIONS, *SHORT, *TWO]
    ranks = [Started("train.py", *words, cwd=work, cache=tiny / "cache", env=RANKED[by](str(rank))) for rank in (0, 1)]
    for finished in [rank.wait() for rank in ranks]:
        assert finished.returncode == 0, finished.stderr
    (folder,) = (work / "outputs").glob("*/*")
    assert (folder / "objective.txt").exists()
    assert (folder / ".hydra" / "config.yaml").exists()
    assert [log.name for log in folder.glob("*.log")] == ["train.log"]


SCRIPT = """
import os
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from atomlab.launch import launch

def task(config):
    assert "HYDRA_FULL_ERROR" not in os.environ
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.seed == 1:
        raise RuntimeError("a fault")
    if config.seed == 2:
        (folder / "sae").mkdir()
    raise ValueError("a mistake")

launch(task, CONF, "train")
"""


@pytest.mark.parametrize(("seed", "code", "kept"), [(1, 1, True), (2, 2, True), (3, 2, False)])
def test_a_folder_and_its_log_stay_unless_nothing_was_done(seed: int, code: int, kept: bool, work: Path) -> None:
    """D10: any crash deleted the run folder with its log; C6: HYDRA_FULL_ERROR reached the task."""
    (work / "own.py").write_text(SCRIPT.replace("CONF", repr(str(CONF))))
    finished = run(str(work / "own.py"), f"seed={seed}", "hydra.run.dir=out", cwd=work, cache=work / "cache")
    assert finished.returncode == code, finished.stderr
    assert (work / "out").exists() == kept
    if kept:
        log = (work / "out" / "train.log").read_text()
        assert "Traceback" in log
        assert ("RuntimeError: a fault" if seed == 1 else "ValueError: a mistake") in log
    assert ("out/train.log" in finished.stderr) == (seed == 1)
    assert ("Traceback" in finished.stderr) == (seed == 1)
