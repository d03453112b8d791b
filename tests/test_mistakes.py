"""A user's mistake ends in one clear sentence and a non-zero exit code, and leaves nothing behind."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.processes import run

CASES = {
    "layer": (["layer=99"], "layer=99 does not exist: smollm2-135m-instruct has 30 layers, counted from 0 to 29"),
    "site": (["site.name=foo"], "site=foo is unknown: choose one of resid_pre"),
    "site_option": (["site=foo"], "site=foo is no option of its group: There are attn_out"),
    "site_null": (["site=null"], "site=null names no option of its group: There are attn_out"),
    "model": (["model=hf", "model.name=does/not-exist"], "'does/not-exist' (revision main) could not be loaded"),
    "key": (["nonsense=1"], "There is no key 'nonsense'"),
    "empty_corpus": (["corpus=local", "corpus.path=empty.txt"], "The corpus is empty"),
    "no_corpus": (["corpus=local", "corpus.path=none.txt"], "corpus.path=none.txt holds no text"),
    "cache": (["cache_dir=/proc/atomlab"], "cache_dir=/proc/atomlab could not be written"),
    "expansion": (["sae.expansion=0"], "sae.expansion=0 should be a number above 0"),
    "no_batch": (["batch_size=0"], "batch_size=0 should be a whole number of 1 or more"),
    "batch": (["batch_size=1000000"], "is more than the 9"),
    "resume": (["resume=none.ckpt"], "The checkpoint none.ckpt does not exist: give another run's checkpoint"),
}


@pytest.fixture(scope="module")
def outcomes(
    cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[subprocess.CompletedProcess[str], Path]]:
    def attempt(name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp(name)
        (folder / "empty.txt").write_text("")
        return run("train.py", *SMALL, "logger=none", *CASES[name][0], cwd=folder, cache=cache), folder

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(CASES, pool.map(attempt, CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_left_behind(name: str, outcomes) -> None:
    finished, folder = outcomes[name]
    assert finished.returncode == 2, finished.stderr
    said = [line for line in finished.stderr.splitlines() if line.startswith("atomlab: ")]
    assert len(said) == 1, finished.stderr
    assert CASES[name][1] in said[0]
    assert "Traceback" not in finished.stderr
    assert [path.name for path in folder.iterdir()] == ["empty.txt"]
