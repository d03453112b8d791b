"""The comparison on SAELens' synthetic models (benchmarks/synth_saebench.py) at 20 steps, and its parts against what is known."""

import json
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Trainer

from atomlab import ThresholdSAE
from atomlab.evaluation import Retraining, StudyInputs, SyntheticStudy
from atomlab.evaluation.planted_by_saelens import D_IN, FEATURES, OWN_NAMES, saelens_law
from atomlab.metrics import ExplainedVariance
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.training.recipe import Architecture, TrainingRecipe
from benchmarks.synth_saebench import FRESH, calibrated, drawn, measured, rows


@pytest.mark.parametrize("law", OWN_NAMES)
def test_every_training_gives_a_row_at_the_true_l0(law: str) -> None:
    arguments = Namespace(
        steps=20, batch=64, ours=["default"], peers=["batchtopk", "jumprelu"], lr=[1e-3], coefficients=[1.0]
    )
    found = list(rows(law, 0, arguments))
    assert [row["unit"] for row in found] == ["atomlab", "batchtopk", "jumprelu"]
    for row in found:
        assert row["l0"] == pytest.approx(row["true_l0"], rel=0.1)
        assert 0 < row["mcc"] < 1
        assert row["r2"] < 1
        assert row["cpu_seconds"] > 0


def test_the_true_dictionary_has_an_mcc_of_one_and_our_r2_is_that_of_sae_lens() -> None:
    model = saelens_law("plain", 0).model
    truth = model.feature_dict.feature_vectors.detach()
    sae = ThresholdSAE(D_IN, FEATURES)
    with torch.no_grad():
        sae.W_dec.copy_(truth)
        sae.W_enc.copy_(truth.T)
        sae.b_dec.copy_(model.feature_dict.bias)
        sae.b_enc.copy_(-(sae.b_dec @ sae.W_enc))
        sae.threshold.fill_(0.6)
    found = measured(sae, model, 5)
    assert found["mcc"] == pytest.approx(1, abs=1e-5)
    assert found["unique"] == 1
    torch.manual_seed(5)
    x = model.sample(FRESH)
    variance = ExplainedVariance(D_IN)
    variance.update(x, sae(x).detach())
    assert float(variance.compute()) == pytest.approx(found["r2"], abs=1e-4)
    assert float((sae.encode(x) > 0).sum(1).double().mean()) == pytest.approx(found["l0"], abs=1e-6)


def test_calibration_moves_all_thresholds_by_one_number_to_the_wanted_l0() -> None:
    torch.manual_seed(0)
    sae, x = ThresholdSAE(D_IN, FEATURES), torch.randn(500, D_IN)
    with torch.no_grad():
        sae.threshold.copy_(0.5 + torch.rand(FEATURES))
    moved = calibrated(sae, x, 9.5)
    assert int((moved.encode(x) > 0).sum()) == round(9.5 * 500)
    steps = moved.threshold - sae.threshold
    torch.testing.assert_close(steps, steps[0].expand_as(steps), rtol=0, atol=1e-6)


def test_vectors_are_drawn_with_their_mean_number_of_features() -> None:
    model = saelens_law("plain", 0).model
    x, l0 = drawn(model, 20_000)
    assert x.shape == (20_000, D_IN)
    assert l0 == pytest.approx(float(model.activation_generator.firing_probabilities.sum()), rel=0.02)


@pytest.mark.parametrize("name", OWN_NAMES)
def test_codes_of_a_law_make_its_vectors_and_a_seed_makes_both(name: str) -> None:
    law = saelens_law(name, 0)
    before = torch.get_rng_state()
    x, codes = law.draw(20_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(codes @ law.dictionary + law.offset, x, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(law.dictionary.norm(dim=1), torch.ones(FEATURES))
    assert float(codes.min()) >= 0
    assert float((codes > 0).sum(1).double().mean()) == pytest.approx(law.l0, rel=0.03)
    again = saelens_law(name, 0)
    assert torch.equal(again.draw(20_000, torch.Generator().manual_seed(1))[0], x)
    assert not torch.equal(again.draw(20_000, torch.Generator().manual_seed(2))[0], x)
    assert (again.identity, again.l0) == (law.identity, law.l0)
    assert saelens_law(name, 1).identity != law.identity
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_sae_lens_saved_is_the_law_that_it_was(tmp_path: Path) -> None:
    made = saelens_law("structured", 3)
    made.model.save(tmp_path / "model")
    read = saelens_law(str(tmp_path / "model"), 0)
    assert read.name == str(tmp_path / "model")
    assert torch.equal(read.dictionary, made.dictionary)
    assert torch.equal(
        read.draw(500, torch.Generator().manual_seed(1))[1], made.draw(500, torch.Generator().manual_seed(1))[1]
    )
    (tmp_path / "model" / "synthetic_model_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.saelens names .*model, which is neither plain nor structured"):
        saelens_law(str(tmp_path / "model"), 0)


def test_atoms_of_another_length_are_brought_to_length_one(tmp_path: Path) -> None:
    law = saelens_law("plain", 0)
    x, codes = law.draw(300, torch.Generator().manual_seed(1))
    longer = saelens_law("plain", 0)
    longer.model.feature_dict.feature_vectors.data *= 2
    doubled, twice = longer.draw(300, torch.Generator().manual_seed(1))
    assert torch.equal(longer.dictionary, law.dictionary)
    assert torch.equal(twice, 2 * codes)
    torch.testing.assert_close(doubled - law.offset, 2 * (x - law.offset))
    assert longer.identity != law.identity


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_the_study_has_a_row_of_each_kind_on_every_model_of_sae_lens(tmp_path: Path) -> None:
    retraining = Retraining(Architecture(), TrainingRecipe(), 0.0, partial(Trainer), batch_size=64, steps=4)
    identity: dict[str, Any] = {"seed": 0}
    sizes = SampleSizes(measured=100)
    inputs = StudyInputs(cast(Any, None), retraining, sizes, tmp_path, 0, "", "setting", identity)
    kinds = ["threshold", "relu", "top_k", "batch_top_k", "gated"]
    SyntheticStudy(vectors=2000, kinds=kinds, own_laws=False, saelens=OWN_NAMES)(inputs)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["law"] for row in rows] == ["SAELens, plain"] * 6 + ["SAELens, structured"] * 6
    for row in rows[5::6]:  # the planted atoms
        assert row["mcc"] == pytest.approx(1)
        assert row["r2"] > 0.9
        assert row["contradictions"] == 0
    assert all(row["mcc"] < 0.9 for row in rows[:5] + rows[6:11])
