"""Rows of a table have the L0 of the atoms on held-out text that needs more atoms than the text of the calibration."""

from dataclasses import replace

import pytest
import torch

from atomlab.evaluation import StudyInputs
from atomlab.evaluation.equal_l0 import Case, EqualL0, mean_l0
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.theory import AtomicInnerProduct
from atomlab.training.build import reference_metric
from atomlab.units import CODERS, atoms
from tests.coders.cases import metric_of, problem, trained


def equal(scale: float) -> tuple[EqualL0, torch.Tensor, torch.Tensor]:
    """Held-out vectors are `scale` times as long around the bias, so that thresholds let more atoms fire."""
    x, dictionary, bias = problem(samples=900, d_sae=96, d_in=48)
    s = metric_of(48)
    sae = trained(dictionary, bias, s, level=1.0)
    validation, test = x[:400], bias + scale * (x[400:] - bias)
    case = Case(atoms(sae), x[:400], HeldOut.independent(test))
    own = [mean_l0(case.unit, vectors) for vectors in (validation, test)]
    return EqualL0(case, validation, s, *own), dictionary, bias


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.5])
def test_the_l0_is_that_of_the_atoms_however_the_text_drifts(coder: str, scale: float) -> None:
    made, dictionary, bias = equal(scale)
    if scale != 1.0:
        assert abs(made.l0 / made.l0_validation - 1) > 0.05
    unit = made.coded("other", made.encoder_of(dictionary.flip(0) + 0.1, bias), coder)
    assert mean_l0(unit, made.case.test.vectors) == pytest.approx(made.l0, rel=0.02)


def test_a_coder_that_cannot_reach_it_is_left_out_with_its_reason() -> None:
    made, dictionary, bias = equal(1.0)
    few = made.encoder_of(dictionary[:6], bias)  # six atoms cannot have so many values a vector
    missing: list[str] = []
    found = replace(made, l0=8.0, l0_validation=8.0).cases("few", few, ["threshold", "threshold_pursuit"], missing)
    assert not found
    assert [text.split(" is left out")[0] for text in missing] == ["few + one-step", "few + pursuit"]


def test_nothing_is_compared_with_atoms_that_never_fire(inputs: StudyInputs) -> None:
    sae = inputs.retraining.train(inputs.data, seed=0)
    with torch.no_grad():
        sae.threshold.fill_(1e9)
    data, metric = inputs.data, reference_metric(inputs.data, inputs.shrinkage)
    case = Case(atoms(sae), data.sample("train", 50), HeldOut.of(data, 50))
    made = EqualL0.of(case, data, metric, 50)
    assert isinstance(metric, AtomicInnerProduct)
    missing: list[str] = []
    assert not made.cases("atoms", sae, ["omp"], missing)  # no pursuit takes less than one atom
    assert "stays 4900.0% away" in missing[0]
