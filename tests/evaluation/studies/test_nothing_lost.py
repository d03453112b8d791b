"""Numbers are on disk before figures, and what cannot be computed takes nothing else with it (faults.md B2)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from transformers import BertConfig, BertModel

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.evaluation import BrowserOptions, ControlledTable, RepresentationShiftStudy, StudyInputs, retraining
from atomlab.evaluation.browser import logit_effects
from atomlab.report import Page, Results, spectrum_figure, write_results
from atomlab.training.build import build
from tests.evaluation.conftest import WORDS
from tests.report.pages import ROWS
from tests.tiny import tokenizer

PLAIN = ControlledTable(controls=[], coders=["threshold"], certify=False, loss=False, browser=None)


@pytest.fixture(scope="module")
def bert(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationDataModule:
    """A tiny BERT in float32. A block ends in a LayerNorm of gain 1, so its output lies in a hyperplane: the entries of
    x − bias sum to zero. The bias keeps the second moment regular; the covariance is singular.
    """
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" not in name:
                parameter += 0.3 * torch.randn_like(parameter)
            if name.endswith("LayerNorm.bias"):
                parameter += 1
    model.save_pretrained(folder / "model")
    tokenizer(WORDS).save_pretrained(folder / "model")
    text = LocalText(str(corpus))
    data = ActivationDataModule(
        LanguageModel(str(folder / "model"), dtype="float32", device="cpu"),
        text,
        text,
        hook_points=HookPoints(site="resid_post", layer=1),
        tokens=TokenRules(context=32, fractions=(0.6, 0.1, 0.3)),
        outliers=Outliers(max_norm_ratio=None),
        harvest=HarvestOptions(cache_dir=str(folder / "cache")),
        batches=TrainingBatches(size=64, steps=20),
    )
    data.prepare_data()
    data.setup()
    return data


def of_bert(inputs: StudyInputs, data: ActivationDataModule) -> StudyInputs:
    """S needs no shrinkage; the covariance does."""
    return replace(inputs, data=data, retraining=replace(inputs.retraining, shrinkage=0.0))


def test_a_geometry_that_bert_does_not_have_costs_one_line_of_a_figure(
    inputs: StudyInputs, bert: ActivationDataModule, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAIN(of_bert(inputs, bert))
    assert [row["unit"] for row in json.loads((inputs.folder / "results.json").read_text())["rows"]] == [
        "atoms",
        "neurons",
    ]
    page, said = (inputs.folder / "report.html").read_text(), capsys.readouterr().err
    assert len(list((inputs.folder / "figures").iterdir())) == 7  # the three of the first screen among them
    for text in (page, said):
        assert "The geometry Mahalanobis of encoder.layer.1.output is left out: " in text
        assert "experiment=representation_shift shrinkage=1e-3" in text
        assert "use more vectors or a shrinkage" not in text  # which is refused beside run=


def test_the_shift_study_has_every_other_geometry_of_bert_and_with_the_advice_that_one_too(
    inputs: StudyInputs, bert: ActivationDataModule
) -> None:
    for shrinkage, there in ((0.0, False), (1e-3, True)):
        own = of_bert(inputs, bert)
        own = replace(own, retraining=replace(own.retraining, shrinkage=shrinkage))
        RepresentationShiftStudy(layers=[1], samples=100)(own)
        found = {row["unit"] for row in json.loads((inputs.folder / "results.json").read_text())["rows"]}
        assert {"Euclidean", "centred", "AIP, reference corpus"} <= found
        assert ("Mahalanobis" in found) is there


@pytest.mark.parametrize("error", [ValueError("no such figure"), torch.linalg.LinAlgError("singular")])  # type: ignore[attr-defined]
def test_a_figure_that_cannot_be_drawn_drops_out_with_its_reason(
    tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Figure:
        raise error

    write(tmp_path, {"broken": fail, "spectrum": lambda: spectrum_figure(torch.ones(3).numpy())})
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["spectrum.png"]
    sentence = f"The figure “broken” is left out: {error}"
    assert sentence in (tmp_path / "report.html").read_text()
    assert capsys.readouterr().err == f"atomlab: {sentence}\n"


def test_a_bug_in_a_figure_is_raised_when_the_numbers_are_written(tmp_path: Path) -> None:
    def fail() -> Figure:
        assert json.loads((tmp_path / "results.json").read_text())["rows"]
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        write(tmp_path, {"broken": fail})
    assert {file.name for file in tmp_path.iterdir()} == {"results.json", "results.csv", "results.md"}


def write(folder: Path, figures: dict[str, Callable[[], Figure]]) -> None:
    write_results(folder, Results(ROWS, "c", {}, {}), Page("t", ""), figures)


def test_what_fails_after_the_rows_does_not_cost_them(inputs: StudyInputs) -> None:
    """The export meets a file where its folder should be, after everything dear is done."""
    (inputs.folder / "delphi").write_text("in the way")
    with pytest.raises(OSError, match="delphi"):
        replace(PLAIN, loss=True, browser=BrowserOptions(delphi=True))(inputs)
    rows = json.loads((inputs.folder / "results.json").read_text())["rows"]
    assert [row["unit"] for row in rows] == ["atoms", "neurons"]
    assert rows[0]["kl"] > 0


def test_a_row_that_fails_does_not_cost_those_before_it(inputs: StudyInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A surrogate's training that ends in an error, here the second one, after the atoms' row is measured."""
    trained: list[int] = []

    def build_once(*given: Any, **options: Any) -> object:
        trained.append(1)
        if len(trained) > 1:
            raise RuntimeError("out of memory")
        return build(*given, **options)

    monkeypatch.setattr(retraining, "build", build_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        replace(PLAIN, controls=["gaussian"])(inputs)
    assert [row["unit"] for row in json.loads((inputs.folder / "results.json").read_text())["rows"]] == [
        "atoms",
        "neurons",
    ]


def test_a_model_without_a_known_final_norm_has_a_browser_without_logits(inputs: StudyInputs) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logit_effects, "_FINAL_NORMS", ("none.such",))
        text, _ = replace(PLAIN, browser=BrowserOptions())(inputs)
    page = (inputs.folder / "report.html").read_text()
    assert "The list of logit effects is left out: No final norm" in page
    assert '<script type="application/json" id="atom-data">' in page
    assert "Held out, the atoms explain" in text
