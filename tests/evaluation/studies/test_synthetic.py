"""The ground-truth study from its call to its files, on two kinds and few steps."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from lightning import Trainer

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation import Retraining, StudyInputs, SyntheticStudy
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.training.recipe import Architecture, TrainingRecipe
from tests.processes import one_sentence, run


def inputs(folder: Path) -> StudyInputs:
    retraining = Retraining(Architecture(), TrainingRecipe(), 0.0, partial(Trainer), batch_size=64, steps=4)
    unread = cast(ActivationDataModule, None)  # neither a model nor its activations are read
    identity: dict[str, Any] = {"seed": 0}
    return StudyInputs(unread, retraining, SampleSizes(measured=100), folder, 0, "", "setting", identity)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_every_law_has_a_row_of_each_kind_and_one_of_the_truth(tmp_path: Path) -> None:
    study = SyntheticStudy(d_in=8, l0=1.5, vectors=400, kinds=["top_k", "relu"])
    text, objective = study(inputs(tmp_path))
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["unit"] for row in rows] == ["TopK", "ReLU", "planted atoms + OMP ≥ 0"] * 4
    assert len({row["law"] for row in rows}) == 4
    assert objective == pytest.approx(sum(row["mcc"] for row in rows if row["unit"] == "TopK") / 4)
    assert all(row["mcc"] == pytest.approx(1) for row in rows if "planted" in row["unit"])
    assert "No certificate is refuted" in text
    assert (tmp_path / "report.html").exists()


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_a_random_start_is_another_training_of_all_kinds_and_changes_nothing_else(tmp_path: Path) -> None:
    found = {}
    for start in ("data", "random"):
        study = SyntheticStudy(d_in=8, l0=1.5, vectors=400, kinds=["threshold", "gated"], initial_atoms=start)
        study(inputs(tmp_path / start))
        rows = json.loads((tmp_path / start / "results.json").read_text())["rows"]
        found[start] = {(row["law"], row["unit"]): row["mcc"] for row in rows}
    same = {key for key, mcc in found["data"].items() if found["random"][key] == mcc}
    assert same == {key for key in found["data"] if "planted" in key[1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_in": 12}, "should be a power of two"),
        ({"l0": 64.0}, "above 0 and below"),
        ({"kinds": ["soft"]}, "soft"),
        ({"own_laws": False}, "study.own_laws=false leaves no law"),
        ({"saelens": "plain"}, "study.saelens=plain is one word: expected a list, study.saelens=\\[plain\\]"),
        (
            {"saelens": ["plain"]},
            "study.saelens=\\[plain\\] needs the package sae-lens: python -m pip install sae-lens",
        ),
        ({"changes": {"noise": 0.0}}, "'noise' is no choice of a fit"),
        ({"initial_atoms": "here"}, "study.initial_atoms names here: choose from data, random, kmeans"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)  # as where it is not installed
    with pytest.raises(ValueError, match=words):
        SyntheticStudy(**change)(inputs(tmp_path))
    assert not list(tmp_path.iterdir())


SMALL = [
    "study.d_in=4", "study.l0=1", "study.vectors=200", "study.kinds=[top_k]", "steps=2", "batch_size=32",
    "sample_sizes.measured=50", "hydra.run.dir=out",
]  # fmt: skip


def test_neither_a_model_nor_a_text_needs_to_be_there(tmp_path: Path) -> None:
    """The packages of the embedded model and text were asked for, which the study does not read."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    groups = "defaults:\n  - override /study: synthetic\n  - override /model: hf\n  - override /corpus: local\n"
    options = f"# @package _global_\n{groups}model:\n  name: nowhere\ncorpus:\n  path: no.txt\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(options)
    words = ["experiment=mine", *SMALL, "study.changes={training.noise: 0.0}"]
    finished = run("evaluate.py", *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["rows"]) == 8
    assert found["provenance"]["changes of the recipes"] == "training.noise=0.0"
    assert not {"model", "corpus", "hook_point"} & set(found["identity"])


@pytest.mark.parametrize(
    "word", ["sae.alpha=0.5", "layer=3", "training.noise=0", "corpus@reference=wikipedia_embedded", "trainer=ddp"]
)
def test_an_option_without_effect_is_refused(word: str, tmp_path: Path) -> None:
    """The recipe of every kind is its own, so `sae.alpha=0.5` changed nothing and nothing said so."""
    finished = run("evaluate.py", "experiment=synthetic", *SMALL, word, cwd=tmp_path, cache=tmp_path / "cache")
    assert f"{word} has no effect on a study that reads no activations" in one_sentence(finished)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_changes_reach_every_kind(tmp_path: Path) -> None:
    found = []
    for changes in ({}, {"sae.alpha": 0.5, "training.noise": 0.1}):
        folder = tmp_path / str(len(found))
        SyntheticStudy(d_in=8, l0=1.5, vectors=400, kinds=["threshold", "relu"], changes=changes)(inputs(folder))
        results = json.loads((folder / "results.json").read_text())
        found.append({(row["law"], row["unit"]): row["r2"] for row in results["rows"]})
    assert results["provenance"]["changes of the recipes"] == "sae.alpha=0.5, training.noise=0.1"
    assert {key for key in found[0] if found[0][key] == found[1][key]} == {
        key for key in found[0] if "planted" in key[1]
    }
