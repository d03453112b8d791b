"""SAEs of other architectures and of other formats in a table: each row has the numbers of the SAE itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from atomlab import ThresholdSAE, load, save_sae
from atomlab.evaluation import ControlledTable, StudyInputs
from atomlab.interop.locate import locate
from atomlab.sae import SAE, BaselineSAE, Incoherence, TopK
from atomlab.training.build import build
from atomlab.training.recipe import InitialAtoms, Revival
from tests.evaluation.test_saes_of_a_study import trained
from tests.interop.layouts import into

QUICK = ControlledTable(controls=[], coders=["threshold", "omp"], certify=False, browser=None)
UNITS = {"atoms", "neurons", "atoms + OMP"}


def rows_of(study: ControlledTable, inputs: StudyInputs) -> dict[str, dict[str, Any]]:
    study(inputs)
    return {row["unit"]: row for row in json.loads((inputs.folder / "results.json").read_text())["rows"]}


@torch.no_grad()
def numbers_of(sae: SAE, inputs: StudyInputs) -> dict[str, float]:
    """R² and L0 of an SAE on the held-out vectors of a table, by their definitions."""
    x = inputs.data.sample("test", inputs.sample_sizes.measured).double()
    x_hat = sae(x.float()).double()
    r2 = 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    return {"r2": float(r2), "l0": float((sae.encode(x.float()) != 0).double().sum(1).mean())}


def check_rows(rows: dict[str, dict[str, Any]], sae: SAE, names: list[str], inputs: StudyInputs) -> None:
    expected = numbers_of(sae, inputs)
    assert rows.keys() == UNITS | {f"{name}{coder}" for name in names for coder in ("", " + one-step", " + OMP")}
    for name in ("atoms", *names):
        found = rows[name]
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-4), name
        assert found["loss_recovered_zero"] == pytest.approx(rows["atoms"]["loss_recovered_zero"], rel=1e-3), name


@pytest.mark.parametrize("kind", ["relu", "top_k", "batch_top_k", "gated"])
def test_an_sae_of_every_architecture_is_measured_as_atoms_and_as_features(
    inputs: StudyInputs, tmp_path: Path, kind: str
) -> None:
    plan = inputs.retraining
    recipe = replace(plan.recipe, noise=0.0, incoherence=Incoherence(0.0), revival=Revival(1000, 0.0))
    own = replace(inputs, retraining=replace(plan, recipe=recipe))
    run = trained(own, tmp_path / "run", activation=kind, alpha=0.0, tied=False)
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    sae = load(checkpoint)
    assert isinstance(sae, BaselineSAE)
    features = {"checkpoint": checkpoint, "folder": str(run / "sae")}
    check_rows(rows_of(replace(QUICK, atoms=checkpoint, features=features), inputs), sae, [*features], inputs)


def as_sparsify(sae: SAE, folder: Path) -> Path:
    """A TopK that keeps 4 latents, at the output of layer 1."""
    weights = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    own = {name: value.detach().contiguous() for name, value in weights.items()}
    return into(folder / "layers.1", cfg__json={"k": 4, "d_in": 16, "num_latents": 32}, sae__safetensors=own)


def as_dictionary_learning(sae: SAE, folder: Path) -> Path:
    own = {name: getattr(sae, name).detach() for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
    trainer = {"dict_class": "JumpReluAutoEncoder", "layer": 1, "submodule_name": "resid_post_layer_1"}
    return into(folder, config__json={"trainer": trainer}, ae__pt=own)


def test_an_sae_of_another_format_is_whatever_an_option_names(inputs: StudyInputs, tmp_path: Path) -> None:
    """By features, atoms, seeds and initial_atoms.source: against the same SAE in this package's own format, and by hand."""
    sae = inputs.retraining.train(inputs.data, seed=3)
    plain = ThresholdSAE(16, 32)
    plain.load_state_dict(sae.state_dict())
    top_k = BaselineSAE(16, 32, TopK(4), apply_b_dec_to_input=True)
    top_k.load_state_dict(
        {name: value for name, value in sae.state_dict().items() if name != "threshold"}, strict=False
    )
    for own, write in ((top_k, as_sparsify), (plain, as_dictionary_learning)):
        place = str(write(own, tmp_path / write.__name__))
        save_sae(own, tmp_path / "own" / write.__name__, {})
        features = {"theirs": place, "ours": str(tmp_path / "own" / write.__name__)}
        study = replace(QUICK, atoms=place, features=features, seeds=[features["ours"]])
        rows = rows_of(study, inputs)
        check_rows(rows, own, [*features], inputs)
        for coder in ("", " + one-step", " + OMP"):
            theirs, ours = rows[f"theirs{coder}"], rows[f"ours{coder}"]
            assert theirs | {"unit": None} == ours | {"unit": None}
        assert rows["atoms"]["consistency"] == pytest.approx(1)
        start = replace(inputs.retraining.recipe, initial_atoms=InitialAtoms(place))
        module = build(inputs.data, inputs.retraining.architecture, start, shrinkage=inputs.shrinkage)
        directions = own.W_dec.detach() @ module.transform.matrix
        cosines = torch.nn.functional.cosine_similarity(module.sae.W_dec.detach(), directions)
        torch.testing.assert_close(cosines, torch.ones(32), rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match=r"was trained at .* and model\.layers\.2\.output is measured"):
            locate(place, inputs.data.at("resid_post", 2))


def test_a_site_that_dictionary_learning_names_in_its_own_words_has_its_layer_compared(
    inputs: StudyInputs, tmp_path: Path
) -> None:
    own = {"trainer": {"dict_class": "JumpReluAutoEncoder", "layer": 1, "submodule_name": "mlp_out_layer_1"}}
    place = as_dictionary_learning(ThresholdSAE(16, 32), tmp_path / "sae")
    into(place, config__json=own)
    locate(place, inputs.data.at("mlp_out", 1))
    with pytest.raises(
        ValueError, match=r"was trained at mlp_out_layer_1 and model\.layers\.2\.mlp\.output is measured"
    ):
        locate(place, inputs.data.at("mlp_out", 2))
