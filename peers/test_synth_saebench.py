"""The comparison on SAELens' synthetic models (benchmarks/synth_saebench.py) at 20 steps, and its parts against what is known."""

from argparse import Namespace

import pytest
import torch

from atomlab import ThresholdSAE
from atomlab.metrics import ExplainedVariance
from benchmarks.synth_saebench import D_IN, FEATURES, FRESH, LAWS, calibrated, drawn, measured, rows, synthetic_model


@pytest.mark.parametrize("law", LAWS)
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
    model = synthetic_model("plain", 0)
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
    model = synthetic_model("plain", 0)
    x, l0 = drawn(model, 20_000)
    assert x.shape == (20_000, D_IN)
    assert l0 == pytest.approx(float(model.activation_generator.firing_probabilities.sum()), rel=0.02)
