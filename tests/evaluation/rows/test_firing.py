"""Dead atoms are counted on as many training vectors as the sample size says, and not on those that a row is measured on."""

from dataclasses import replace

import pytest
import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation import StudyInputs
from atomlab.evaluation.rows.firing import firing_on_training
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import ThresholdSAE
from atomlab.units import atoms


def sparse_atoms(vectors: torch.Tensor, width: int) -> ThresholdSAE:
    """A TSAE whose atoms each fire on few of the vectors: random directions with high thresholds."""
    torch.manual_seed(0)
    sae = ThresholdSAE(vectors.shape[1], width)
    with torch.no_grad():
        z = sae.pre_activations(vectors)
        sae.threshold.copy_(z.quantile(0.75, dim=0).clamp(min=1e-3))
        sae.threshold[: width // 2] = z.amax(0)[: width // 2].clamp(min=1e-3) * 0.99  # fire on one vector or a few
    return sae


@pytest.mark.parametrize("fired", [1, 7, 40, 10**6])
def test_dead_atoms_are_counted_by_brute_force_on_the_drawn_vectors(inputs: StudyInputs, fired: int) -> None:
    data: ActivationDataModule = inputs.data
    everything = data.sample("train", 10**9)
    unit = atoms(sparse_atoms(everything, 24))
    drawn = everything[:fired]  # a sample is the beginning of a larger one
    fires = torch.stack([unit.encode(x[None]).to_dense()[0] != 0 for x in drawn]).sum(0)
    found = firing_on_training(unit, data, SampleSizes(measured=2, fired=fired, batch=9))
    assert found == {
        "dead": (fires == 0).double().mean().item(),
        "single_sample": (fires == 1).double().mean().item(),
        "samples_fired": min(fired, len(everything)),
    }


def test_rare_atoms_do_not_pass_for_dead_ones(inputs: StudyInputs) -> None:
    data: ActivationDataModule = inputs.data
    unit = atoms(sparse_atoms(data.sample("train", 10**9), 24))
    few, all_of_them = (
        firing_on_training(unit, data, SampleSizes(measured=2, fired=fired))["dead"] for fired in (10, 10**6)
    )
    assert few > 0.4
    assert all_of_them == 0


def test_codes_of_a_search_are_not_counted(inputs: StudyInputs) -> None:
    unit = atoms(sparse_atoms(inputs.data.sample("train", 100), 24))
    assert firing_on_training(replace(unit, coder="OMP"), inputs.data, SampleSizes()) == {}
