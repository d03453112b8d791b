"""From data and a recipe to a module that is ready to train."""

import torch

from atomlab.activations.store.moments import Moments
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import InputTransform, ThresholdSAE, calibrate_thresholds_
from atomlab.theory import AtomicInnerProduct
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Architecture, Coordinates, TrainingRecipe, check_shrinkage
from atomlab.training.training_data import TrainingData


def build(
    data: TrainingData,
    architecture: Architecture = Architecture(),
    recipe: TrainingRecipe = TrainingRecipe(),
    *,
    shrinkage: float = 0.0,
    sample_sizes: SampleSizes = SampleSizes(),
) -> SAEModule:
    """Builds the module that trains a TSAE on `data`, with thresholds that are calibrated on its training vectors.

    The initial atoms are drawn from PyTorch's global random numbers, which the caller seeds.

    Args:
        data: prepared and set up.
        architecture: of the TSAE.
        recipe: of its training.
        shrinkage: λ of the metric S = (C + λ·(tr C / d)·I)⁻¹, where C is the second moment of the reference corpus.
        sample_sizes: of its validations.

    Returns:
        The module, on the CPU, in float32.

    Raises:
        ValueError: fewer than two latents, a calibration to more active latents than there are, or a second moment
            that has no inverse.
    """
    check_shrinkage(shrinkage)
    d_in, l0 = data.d_in, recipe.initial_l0
    d_sae = architecture.d_sae(d_in)
    if not l0 < d_sae:
        raise ValueError(
            f"training.calibration.l0={l0} should be below d_sae={d_sae}, which is sae.expansion={architecture.expansion} "
            f"times d_in={d_in}: lower it (it follows training.sparsity.target) or raise the expansion."
        )
    metric = reference_metric(data, shrinkage)
    transform = _transform(architecture.inputs, data.moments, metric)
    sae = ThresholdSAE(d_in, d_sae, bandwidth=architecture.bandwidth, tied=architecture.tied)
    calibrate_thresholds_(sae, transform(data.sample("train", recipe.calibration.samples)), l0)
    return SAEModule(sae, transform, metric, recipe, sample_sizes=sample_sizes)


def reference_metric(data: TrainingData, shrinkage: float) -> AtomicInnerProduct:
    """Computes the metric S = (C + λ·(tr C / d)·I)⁻¹ of the reference corpus.

    Args:
        data: prepared and set up; C is the uncentred second moment of its reference corpus.
        shrinkage: λ.

    Returns:
        S, kept in float64.

    Raises:
        ValueError: C has no inverse and λ is 0.
    """
    reference = data.reference_moments
    return AtomicInnerProduct.from_second_moment(reference.second_moment, shrinkage=shrinkage, count=reference.count)


def _transform(inputs: Coordinates, moments: Moments, metric: AtomicInnerProduct) -> InputTransform:
    mean, second_moment = moments.mean, moments.second_moment
    identity = torch.eye(len(mean), dtype=torch.float64)
    if inputs == "raw":
        return InputTransform.identity(len(mean))
    if inputs == "unit_mean_square":
        return InputTransform.scaled(mean, identity, identity, second_moment)
    return InputTransform.scaled(mean, metric.whitening, metric.unwhitening, second_moment)
