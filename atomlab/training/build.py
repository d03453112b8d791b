"""From data and a recipe to a module that is ready to train."""

import sys

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.store.moments import Moments
from atomlab.groups import ALONE, Groups
from atomlab.interop.locate import load_at_site
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import SAE, InputTransform, ThresholdSAE, calibrate_thresholds_
from atomlab.theory import AtomicInnerProduct
from atomlab.training.initial_atoms import common_atoms, in_coordinates, initial_atoms
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Architecture, InitialAtoms, TrainingRecipe, check_shrinkage, check_together
from atomlab.training.training_data import TrainingData


def build(
    data: TrainingData,
    architecture: Architecture = Architecture(),
    recipe: TrainingRecipe = TrainingRecipe(),
    *,
    shrinkage: float = 0.0,
    sample_sizes: SampleSizes = SampleSizes(),
    groups: Groups = ALONE,
) -> SAEModule:
    """Builds the module that trains an SAE on `data`; a TSAE's thresholds are calibrated on its training vectors.

    Everything random is drawn from PyTorch's global random numbers, which the caller seeds: the initial atoms, and the seed
    of the noise.

    Args:
        data: prepared and set up.
        architecture: of the SAE.
        recipe: of its training.
        shrinkage: λ of the metric S = (C + λ·(tr C / d)·I)⁻¹, where C is the second moment of the reference corpus.
        sample_sizes: of its validations.
        groups: the processes that will train together (`Groups.of` the trainer). They need not be connected yet. Where several
            share the dictionary, each gets its own rows of the one draw of initial atoms; one that sees other data than the
            first gets its weights from it when the training starts.

    Returns:
        The module, on the CPU, in float32.

    Raises:
        ValueError: fewer than two latents, a calibration to more active latents than there are, a recipe or processes that
            are not for this architecture, initial atoms of another site or number, or a second moment that has no inverse.
    """
    check_shrinkage(shrinkage)
    check_together(architecture, recipe, groups)
    d_in, l0 = data.d_in, recipe.initial_l0
    d_sae = architecture.d_sae(d_in)
    if not l0 < d_sae:
        raise ValueError(
            f"training.calibration.l0={l0} should be below d_sae={d_sae}, which is sae.expansion={architecture.expansion} "
            f"times d_in={d_in}: lower it (it follows training.sparsity.target) or raise the expansion."
        )
    metric = reference_metric(data, shrinkage)
    transform = _transform(architecture, data.moments, metric)
    sae = architecture.new_sae(d_in, l0, groups)
    _start_atoms_(sae, data, transform, metric, recipe.initial_atoms)
    if isinstance(sae, ThresholdSAE):
        calibrate_thresholds_(sae, transform(data.sample("train", recipe.calibration.samples)), l0)
    scale = transform.root_mean_square(data.moments.mean, data.moments.second_moment)
    return SAEModule(sae, transform, metric, recipe, sample_sizes=sample_sizes, root_mean_square=scale)


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


def _transform(architecture: Architecture, moments: Moments, metric: AtomicInnerProduct) -> InputTransform:
    if architecture.inputs == "raw":
        return InputTransform.identity(len(moments.mean))
    half = architecture.alpha / 2
    return InputTransform.scaled(moments.mean, metric.power(half), metric.power(-half), moments.second_moment)


def _start_atoms_(
    sae: SAE, data: TrainingData, transform: InputTransform, metric: AtomicInnerProduct, options: InitialAtoms
) -> None:
    """Sets the atoms that the training starts from; not in processes that DDP gives them to, which see other data than the
    first.
    """
    seed = int(torch.randint(2**31, ()))  # drawn in every process, so that all go on with the same random numbers
    if options.source == "random" or sae.shard.groups.data.rank > 0:
        return
    shard = sae.shard
    first = None
    if options.paths:
        others = _other_atoms(options, data, metric)
        if len(others) == 1:
            _check_number(options, len(others[0]), sae)
            sae.start_from_(in_coordinates(shard.own(others[0]), transform))
            return
        white = [torch.nn.functional.normalize(metric.whiten(atoms), dim=1) for atoms in others]
        first = in_coordinates(common_atoms(white, options.agreement) @ metric.unwhitening.float(), transform)
        sys.stderr.write(f"atomlab: {len(first):,} atoms are in more than half of {len(others)} runs\n")
    x = transform(data.sample("train", options.samples))
    generator = torch.Generator().manual_seed(seed)
    sae.start_from_(shard.own(initial_atoms(x, shard.d_sae, options, generator, first)))


def _other_atoms(options: InitialAtoms, data: TrainingData, metric: AtomicInnerProduct) -> list[torch.Tensor]:
    """Reads the atoms of the other trainings that this one starts from."""
    if not isinstance(data, ActivationDataModule):
        raise ValueError(
            f"training.initial_atoms.source={options.source} is a path, and these vectors have no model and site that its "
            "atoms could belong to: use kmeans, data or random."
        )
    return [load_at_site(path, data, metric).W_dec.detach() for path in options.paths]


def _check_number(options: InitialAtoms, found: int, sae: SAE) -> None:
    if found != sae.shard.d_sae:
        raise ValueError(
            f"training.initial_atoms.source={options.source} has {found} atoms and this run {sae.shard.d_sae}: set "
            f"sae.expansion={found / sae.d_in:g}, or start from kmeans."
        )
