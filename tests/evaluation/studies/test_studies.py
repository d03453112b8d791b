"""Every study from text to report, on a tiny real model."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atomlab import load_sae, save_sae
from atomlab.evaluation import (
    BrowserOptions,
    CapacityGrid,
    ControlledTable,
    PaperTable,
    RepresentationShiftStudy,
    StudyInputs,
    retraining,
)
from atomlab.evaluation.studies.paper_table import layers_won, mean_rows
from atomlab.evaluation.surrogates import gaussian_vectors
from atomlab.training.build import build
from atomlab.training.recipe import Architecture
from atomlab.training.vectors import VectorsDataModule

CODED = {
    name: [f"{name} + {coder}" for coder in ("one-step", "pursuit", "OMP")] for name in ("data", "k-means", "random")
}
CODED |= {"Gaussian TSAE": [f"Gaussian TSAE + {coder}" for coder in ("one-step", "pursuit", "OMP")]}
ALL = ["atoms", "neurons", "atoms + pursuit", "atoms + OMP", "imported", "imported + one-step", "imported + pursuit"]
ALL += ["imported + OMP", "data, nearest", *CODED["data"], *CODED["k-means"], *CODED["random"], *CODED["Gaussian TSAE"]]
ALL += ["Gaussian TSAE on its own"]


def test_the_controlled_table_has_every_row_and_column_and_its_report(inputs: StudyInputs) -> None:
    sae = inputs.retraining.train(inputs.data, seed=3)
    save_sae(sae, inputs.folder / "imported", {})
    study = ControlledTable(
        features={"imported": str(inputs.folder / "imported")}, retrain=1, browser=BrowserOptions(delphi=True)
    )
    text, objective = study(inputs)
    written = json.loads((inputs.folder / "results.json").read_text())
    rows = {row["unit"]: row for row in written["rows"]}
    assert list(rows) == ALL
    assert objective == rows["atoms"]["r2_s_validation"] != rows["atoms"]["r2_s"]
    for key in (
        "loss_recovered_zero",
        "kl",
        "consistency",
        "stable",
        "r2_of_stable",
        "token_entropy",
        "solved_level_5",
        "isometry_stable",
    ):
        assert rows["atoms"][key] is not None
    for row in rows.values():
        assert {"samples", "d_sae", "s_corpus", "s_vectors", "shrinkage", "stability_pairwise_random"} <= row.keys()
    fitted = {name: row["samples_fitted"] for name, row in rows.items()}
    of_data = {name for name in ALL if name.startswith(("data", "k-means", "Gaussian"))}
    assert {fitted[name] for name in of_data} == {inputs.sample_sizes.controls}
    assert fitted["atoms"] == fitted["atoms + OMP"] == len(inputs.data.rows["train"]) > inputs.sample_sizes.controls
    assert fitted["neurons"] is fitted["imported"] is fitted["random + OMP"] is None
    assert rows["neurons"]["r2"] == pytest.approx(1)
    assert {path.name for path in inputs.folder.iterdir()} >= {"results.csv", "report.html", "figures", "delphi"}
    page = (inputs.folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img/onerror" not in page
    assert "&lt;b&gt;config" in page
    assert "Rates by support size" in page
    assert "Representation shift" in page
    assert "Held out, the atoms explain" in text
    assert load_file(next((inputs.folder / "delphi").rglob("*.safetensors")))["locations"].shape[1] == 3


def test_a_gaussian_without_structure_is_remembered_by_as_many_atoms_as_vectors(inputs: StudyInputs) -> None:
    """Theory.md 9: near-perfect in-sample R² needs no atoms in the data; held out shows it."""
    moments = inputs.data.moments
    generator = torch.Generator().manual_seed(0)
    train, fresh = (gaussian_vectors(moments, count, generator) for count in (64, 1000))
    trainer = inputs.retraining.trainer
    retraining = replace(inputs.retraining, steps=600, trainer=lambda **given: trainer(**(given | {"max_steps": 600})))
    data = VectorsDataModule(train, inputs.data.reference_moments, batch_size=64, steps=600)
    sae = retraining.train(data, seed=0, expansion=8)

    def r2(x: torch.Tensor) -> float:
        with torch.no_grad():
            return float(1 - (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())

    assert r2(train) > 0.9
    assert r2(fresh) < r2(train) - 0.3


def test_the_papers_table_is_one_harvest_and_a_mean_over_layers(inputs: StudyInputs) -> None:
    text, objective = PaperTable(layers=[0, 2], controls=["random"], coders=["threshold", "omp"])(inputs)
    written = json.loads((inputs.folder / "results.json").read_text())
    assert [(row["layer"], row["unit"]) for row in written["rows"]] == [
        (layer, unit)
        for layer in (0, 2)
        for unit in ("atoms", "neurons", "atoms + OMP", "random + one-step", "random + OMP")
    ]
    ours = [row["r2_s"] for row in written["rows"] if row["unit"] == "atoms"]
    assert written["means"][0]["r2_s"] == pytest.approx(sum(ours) / 2)
    chosen_by = [row["r2_s_validation"] for row in written["rows"] if row["unit"] == "atoms"]
    assert objective == written["means"][0]["r2_s_validation"] == pytest.approx(sum(chosen_by) / 2)
    assert "Published for features" in text
    assert all(row["stability_pairwise_random"] is not None for row in written["rows"])
    page = (inputs.folder / "report.html").read_text()
    assert page.count("<td>published</td>") == 5
    assert page.count("<td>this run</td>") == 5
    assert "<td>99.92%</td>" in page
    assert "<td>99.74%</td>" in page
    assert "Layer by layer" in page
    assert load_sae(inputs.folder / "sae" / "layer-2").d_sae == 32
    assert {(row["d_sae"], row["s_corpus"], row["samples"]) for row in written["means"]} >= {(32, "LocalText", 200)}


def test_the_papers_table_has_an_imported_sae_of_each_layer(inputs: StudyInputs) -> None:
    plain = PaperTable(layers=[0, 2], controls=[], coders=["threshold"])
    plain(inputs)
    first = json.loads((inputs.folder / "results.json").read_text())["rows"]
    again = replace(inputs, folder=inputs.folder / "again")
    again.folder.mkdir()
    replace(plain, features={"released": f"{inputs.folder}/sae/layer-{{layer}}"})(again)
    rows = json.loads((again.folder / "results.json").read_text())["rows"]
    for layer in (0, 2):
        (atoms, released) = (
            [r for r in rows if (r["layer"], r["unit"]) == (layer, name)] for name in ("atoms", "released")
        )
        assert atoms == [row for row in first if (row["layer"], row["unit"]) == (layer, "atoms")]
        same = {"unit", "samples_fitted", "r2_s_validation", "against", "r2_difference", "r2_s_difference"}
        assert {k: v for k, v in released[0].items() if k not in same} == {
            k: v for k, v in atoms[0].items() if k not in same
        }
    with pytest.raises(FileNotFoundError, match="layer-1"):
        PaperTable(layers=[0, 1], controls=[], features={"released": f"{inputs.folder}/sae/layer-{{layer}}"})(again)


def test_a_stopped_table_goes_on_with_the_layers_it_has(inputs: StudyInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run trains nothing where the first one finished; another list of layers keeps them, another
    setting nothing."""
    first = PaperTable(layers=[0, 1], controls=[])(inputs)

    def refuse(*given: object, **options: object) -> object:
        raise AssertionError("trained again")

    monkeypatch.setattr(retraining, "build", refuse)
    (inputs.folder / "results.json").unlink()
    assert PaperTable(layers=[0, 1], controls=[])(inputs) == first
    PaperTable(layers=[1], controls=[])(replace(inputs, configuration="of another list of layers"))
    (inputs.folder / "parts" / "layer-1.json").unlink()
    with pytest.raises(AssertionError, match="trained again"):
        PaperTable(layers=[0, 1], controls=[])(inputs)
    with pytest.raises(AssertionError, match="trained again"):
        PaperTable(layers=[0], controls=[])(replace(inputs, setting="other"))


def test_means_leave_out_what_is_missing() -> None:
    rows = [
        {"unit": "a", "x": 1.0, "y": None, "k": 3, "d_sae": 8, "s_corpus": "wiki"},
        {"unit": "a", "x": 3.0, "y": 4.0, "k": 4, "d_sae": 8, "s_corpus": "wiki"},
        {"unit": "b", "x": 5.0, "y": None},
    ]
    assert mean_rows(rows) == [
        {"unit": "a", "layers": 2, "x": 2.0, "y": 4.0, "k": 3.5, "d_sae": 8, "s_corpus": "wiki"},
        {"unit": "b", "layers": 1, "x": 5.0, "y": None},
    ]


def test_the_shift_study_knows_its_identity_and_its_null(inputs: StudyInputs) -> None:
    _, objective = RepresentationShiftStudy(layers=[0, 2], samples=128)(inputs)
    rows = json.loads((inputs.folder / "results.json").read_text())["rows"]
    assert {row["layer"] for row in rows} == {0, 2}
    data = inputs.data.at("resid_post", 2)
    data.setup()
    x = data.sample("test", 128).double()
    for name, seen in (("Euclidean", x), ("centred", x - data.moments.mean)):
        unit = torch.nn.functional.normalize(seen, dim=1)
        angles = (unit @ unit.T)[tuple(torch.triu_indices(len(x), len(x), 1))].clamp(-1, 1).arccos().rad2deg()
        row = next(row for row in rows if (row["unit"], row["layer"]) == (name, 2))
        assert (row["mean"], row["sd"]) == pytest.approx((float(angles.mean()), float(angles.std(correction=0))))
        assert row["shift"] == pytest.approx(abs(row["mean"] - 90))
    across = [row["shift_validation"] for row in rows if row["unit"] == "AIP, reference corpus"]
    assert objective == pytest.approx(sum(across) / 2)
    assert {row["unit"] for row in rows} >= {"Euclidean", "centred", "Mahalanobis", "causal", "AIP, reference corpus"}


def test_the_capacity_grid_has_a_cell_for_every_pair_and_its_surrogate(inputs: StudyInputs) -> None:
    _, objective = CapacityGrid(vectors=[64, 128, 10**6], expansions=[1, 2])(inputs)
    rows = json.loads((inputs.folder / "results.json").read_text())["rows"]
    available = len(inputs.data.rows["train"])
    assert [(r["unit"], r["vectors"], r["d_sae"]) for r in rows] == [
        (unit, n, m) for unit in ("data", "Gaussian surrogate") for n in (64, 128, available) for m in (16, 32)
    ]
    assert objective == max(row["r2_s_train"] - row["r2_s_validation"] for row in rows)
    assert len(list((inputs.folder / "figures").iterdir())) == 1


@pytest.mark.parametrize("study", [PaperTable, RepresentationShiftStudy])
def test_layers_that_are_none_are_refused_before_anything_is_done(inputs: StudyInputs, study: type) -> None:
    for layers, said in (([], "names no layer"), (5, "names no layer"), ([0, 9], "layer=9 does not exist")):
        with pytest.raises(ValueError, match=said):
            study(layers=layers)(inputs)


def test_the_first_of_a_sample_are_a_sample(inputs: StudyInputs) -> None:
    """Rows lie by length of their sequence, and what is dear is measured on the first of a sample."""
    data = inputs.data
    rows = data.rows["train"][torch.arange(len(data.rows["train"]))]
    sample = data.sample("train", 200)
    place = (sample[:, None] == rows[None]).all(2).double().argmax(1)
    assert torch.equal(rows[place], sample)
    assert len(place.unique()) == 200
    assert torch.equal(data.sample("train", 50), sample[:50])
    ranks = place.double() / len(rows)
    assert 0.4 < float(ranks[:50].mean()) < 0.6  # sd .04; .05 in ascending order


def test_what_does_not_fit_is_refused(inputs: StudyInputs) -> None:
    with pytest.raises(ValueError, match=r"study\.controls names nonsense"):
        ControlledTable(controls=["nonsense"], certify=False, loss=False, browser=None)(inputs)
    save_sae(inputs.retraining.train(inputs.data, seed=0), inputs.folder / "sae", {})
    other = replace(inputs, data=inputs.data.at("mlp_hidden", 1))
    with pytest.raises(ValueError, match="d_in=16 and this site 24"):
        ControlledTable(atoms=str(inputs.folder / "sae"))(other)


def test_finished_parts_are_kept_and_a_change_of_setting_computes_again(
    inputs: StudyInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study stopped after two cells goes on at the third, with the rows of an uninterrupted run."""
    study = CapacityGrid(vectors=[64, 128], expansions=[1, 2], surrogate=False)
    trained = []

    def stop_after(count: int) -> None:
        def counting(data: Any, architecture: Architecture, *rest: Any, **options: Any) -> object:
            if len(trained) == count:
                raise KeyboardInterrupt
            trained.append(architecture.expansion)
            return build(data, architecture, *rest, **options)

        monkeypatch.setattr(retraining, "build", counting)

    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        study(inputs)
    assert not (inputs.folder / "results.json").exists()
    stop_after(99)
    study(inputs)
    assert trained == [1, 2, 1, 2]
    resumed = json.loads((inputs.folder / "results.json").read_text())["rows"]
    other = replace(inputs, folder=inputs.folder / "other")
    other.folder.mkdir()
    study(other)
    assert json.loads((other.folder / "results.json").read_text())["rows"] == resumed
    trained.clear()
    study(replace(inputs, setting="another"))
    assert trained == [1, 2, 1, 2]


def test_a_layer_is_won_where_every_interval_lies_above_zero() -> None:
    def row(layer: int, unit: str, low: float | None) -> dict:
        return {
            "layer": layer,
            "unit": unit,
            "against": "atoms",
            "r2_difference": {"low": low},
            "r2_s_difference": {"low": 1.0},
        }

    rows = [
        {"layer": 0, "unit": "atoms"},
        row(0, "a", 0.1),
        row(0, "b", 0.2),
        row(1, "a", 0.1),
        row(1, "b", -0.1),
        row(2, "a", None),
    ]
    assert layers_won(rows) == "atoms: more than every control compared with them at 1 of 3 layers, in the S-norm at 3."
    assert layers_won(rows[:1]) == ""
