"""One call of every public function of the theory that takes a floating tensor, on the same small inputs.

`Inputs` can be of any dtype and on any device: tests say what must not depend on it.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from atomlab import theory
from atomlab.theory import AtomicInnerProduct, Geometry

N, D, SAMPLES = 24, 16, 12


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A dictionary (24, 16), non-negative codes of 0 to 3 atoms (12, 24), their vectors (12, 16) and a metric."""

    dictionary: Tensor
    codes: Tensor
    x: Tensor
    metric: AtomicInnerProduct

    def to(self, dtype: torch.dtype) -> "Inputs":
        tensors = (tensor.to(dtype) for tensor in (self.dictionary, self.codes, self.x))
        return Inputs(*tensors, self.metric)


def inputs() -> Inputs:
    """Float32, of numbers that float16 and bfloat16 hold exactly. Codes are so large that their sum is beyond float16."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(N, D, generator=generator).bfloat16().float()
    codes = torch.zeros(SAMPLES, N)
    for number, row in enumerate(codes):
        row[torch.randperm(N, generator=generator)[: number % 4]] = 2.0 ** (13 + number % 3)
    x = torch.randn(SAMPLES, D, generator=generator).bfloat16().float()
    second = torch.randn(4 * D, D, generator=generator, dtype=torch.float64)
    return Inputs(dictionary, codes, x, AtomicInnerProduct.from_second_moment(second.T @ second / len(second)))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _sizes(i: Inputs) -> Tensor:
    return torch.bincount(theory.support_sizes(i.codes), minlength=3)


def _support(i: Inputs) -> Tensor:
    return torch.tensor([0, 3, 5], device=i.dictionary.device)


CALLS: dict[str, Callable[[Inputs], object]] = {
    "angle_distribution": lambda i: theory.angle_distribution(i.x, Geometry(i.x[0] / 2, i.metric)),
    "babel_function": lambda i: theory.babel_function(i.dictionary, 3, i.metric),
    "basis_pursuit": lambda i: theory.basis_pursuit(i.x, i.dictionary, i.metric),
    "coherence_statistics": lambda i: theory.coherence_statistics(i.dictionary, i.metric, k=5, block=7),
    "dual_certificates": lambda i: theory.dual_certificates(i.codes, i.dictionary, i.metric),
    "empirical_isometry": lambda i: theory.empirical_isometry(i.codes, i.dictionary, i.metric, largest=2),
    "exact_recovery_coefficient": lambda i: theory.exact_recovery_coefficient(i.dictionary, _support(i), i.metric),
    "exact_recovery_coefficients": lambda i: theory.exact_recovery_coefficients(i.codes, i.dictionary, i.metric),
    "explained_variance": lambda i: theory.explained_variance(theory.variance_sums(i.x, i.x / 2), len(i.x)),
    "firing_counts": lambda i: theory.firing_counts(i.codes),
    "first_samples": lambda i: theory.first_samples(i.codes, 3),
    "gaussian_surrogate": lambda i: theory.gaussian_surrogate(i.x, generator()),
    "isometry_constants": lambda i: theory.isometry_constants(i.dictionary / 4, _support(i)[None]),
    "isometry_ratios": lambda i: theory.isometry_ratios(i.codes, i.dictionary, i.metric),
    "kl_divergence": lambda i: theory.kl_divergence(i.x, i.x.flip(1)),
    "loss_recovered": lambda i: theory.loss_recovered(i.x, i.x * 2, i.x * 4),
    "match_atoms": lambda i: theory.match_atoms(i.dictionary[:9], i.dictionary.flip(1), i.metric),
    "matched_cosines": lambda i: theory.matched_cosines(i.dictionary[:9], i.dictionary.flip(1), i.metric),
    "mean_matched_cosine": lambda i: theory.mean_matched_cosine(i.dictionary[:9], i.dictionary.flip(1), i.metric),
    "mutual_coherence": lambda i: theory.mutual_coherence(i.dictionary, i.metric),
    "orthogonal_matching_pursuit": lambda i: theory.orthogonal_matching_pursuit(i.x, i.dictionary, 3, i.metric),
    "per_atom_coherence": lambda i: theory.per_atom_coherence(i.dictionary, i.metric),
    "random_codes": lambda i: theory.random_codes(i.codes, generator()),
    "reconstruct": lambda i: theory.reconstruct(theory.supports(i.codes / 2**13), i.dictionary),
    "recovery_levels": lambda i: theory.recovery_levels(i.codes, i.dictionary, i.metric),
    "refit_codes": lambda i: theory.refit_codes(i.x, i.codes, i.dictionary, i.metric),
    "representation_shift": lambda i: theory.representation_shift(
        i.x, {"own": Geometry(None, i.metric)}, generator=generator()
    ),
    "restricted_isometry_bounds": lambda i: theory.restricted_isometry_bounds(
        i.dictionary, 3, i.metric, supports=_support(i)[None], samples=8, enumeration_limit=10, generator=generator()
    ),
    "restricted_isometry_curve": lambda i: theory.restricted_isometry_curve(
        i.dictionary, 6, i.metric, samples=8, generator=generator()
    ),
    "shared_thresholds": lambda i: theory.shared_thresholds(i.x, i.codes, i.dictionary, i.metric),
    "solved_recovery": lambda i: theory.solved_recovery(i.codes, i.dictionary, i.metric),
    "stability_pairwise": lambda i: theory.stability_pairwise(i.dictionary, _sizes(i), i.metric),
    "stability_per_atom": lambda i: theory.stability_per_atom(i.dictionary, _sizes(i), i.metric),
    "subspace_energy": lambda i: theory.subspace_energy(i.dictionary, i.dictionary.flip(1), i.metric, nearest=3),
    "support_grams": lambda i: theory.support_grams(i.dictionary, theory.supports(i.codes)),
    "support_recovery": lambda i: theory.support_recovery(
        i.x, i.codes, i.dictionary, i.dictionary[:, 0].abs(), i.metric
    ),
    "support_sizes": lambda i: theory.support_sizes(i.codes),
    "supports": lambda i: theory.supports(i.codes),
    "threshold_windows": lambda i: theory.threshold_windows(i.codes, i.dictionary, i.metric),
    "unit_rows": lambda i: theory.unit_rows(i.dictionary, i.metric),
    "explained_shares": lambda i: theory.explained_shares(i.x, i.x / 2, i.x[0], i.metric.whitening.to(i.x.device)),
    "variance_sums": lambda i: theory.variance_sums(i.x, i.x / 2, i.metric.whitening.to(i.x.device)),
}
# Functions of sizes, verdicts, float64 moments or nothing.
NO_FLOATS = {
    "babel_recovery_certified", "babel_unique_certified", "bootstrap_interval", "coherence_certified", "disagreement",
    "first_supports", "geometries", "group_weights", "random_dictionary", "rate", "welch_bound",
}  # fmt: skip


def numbers(found: object) -> list[Tensor]:
    """All numbers in a result, whatever it is made of, on the CPU."""
    if isinstance(found, Tensor):
        return [found.detach().cpu()]
    if isinstance(found, dict):
        return [part for value in found.values() for part in numbers(value)]
    if isinstance(found, tuple | list):
        return [part for value in found for part in numbers(value)]
    if dataclasses.is_dataclass(found):
        return numbers(vars(found))
    assert found is None or isinstance(found, float | int | bool), type(found)
    return [] if found is None else [torch.tensor(found, dtype=torch.float64)]
