"""A validation's numbers against the theory's functions on all vectors at once, and against chance."""

import math

import pytest
import torch

from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import ThresholdSAE
from atomlab.theory import (
    AtomicInnerProduct,
    empirical_isometry,
    first_supports,
    mutual_coherence,
    random_dictionary,
    recovery_levels,
    restricted_isometry_bounds,
    stability_pairwise,
    stability_per_atom,
    support_sizes,
    supports,
    threshold_windows,
)
from atomlab.training.validation import Measurement

MEASURED, CERTIFIED = 70, 50
SIZES = SampleSizes(measured=MEASURED, dashboard=CERTIFIED, supports=7)


def trained() -> tuple[ThresholdSAE, AtomicInnerProduct, torch.Tensor]:
    """A TSAE with dead latents, and vectors with a mean, none of whose codes is an average one."""
    torch.manual_seed(0)
    sae = ThresholdSAE(12, 60, bandwidth=0.1, tied=True)
    with torch.no_grad():
        sae.threshold.fill_(1.5)
        sae.threshold[[3, 11]] = 100.0
    x = torch.randn(90, 12) * torch.linspace(0.5, 1.5, 90)[torch.randperm(90)][:, None] + 0.2
    with torch.no_grad():  # a latent that fires on one of the measured vectors
        sae.threshold[5] = sae.pre_activations(x[:MEASURED])[:, 5].topk(2).values.mean()
    return sae, AtomicInnerProduct.from_second_moment(x.T @ x / len(x)), x


def measured(sae: ThresholdSAE, metric: AtomicInnerProduct, x: torch.Tensor) -> dict[str, float]:
    found = Measurement(sae, metric, SIZES, null=True)
    for batch in x.split([40, 7, 43]):  # either sample ends within a batch
        found.update(batch)
    return found.values()


def r2(error: torch.Tensor, centred: torch.Tensor) -> float:
    return 1 - (error.square().sum() / centred.square().sum()).item()


@torch.no_grad()
def test_uneven_batches_give_the_theorys_numbers_of_the_first_vectors() -> None:
    sae, metric, every = trained()
    found, x = measured(sae, metric, every), every[:MEASURED].double()
    codes, dictionary = sae.encode(every[:MEASURED]), sae.W_dec.detach()
    error, centred = x - sae.decode(codes), x - x.mean(0)
    sizes, first = support_sizes(codes), codes[:CERTIFIED]
    k, histogram, own = int(sizes.sort().values[MEASURED // 2 - 1]), torch.bincount(sizes), supports(first)
    assert (sizes[:CERTIFIED] == k).sum() > 0
    assert (sizes == 0).any()
    levels = [recovery_levels(part, dictionary, metric).rates() for part in (codes, first)]
    bounds = restricted_isometry_bounds(
        dictionary, k, metric, supports=first_supports(own.indices, own.sizes, k), samples=7,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    isometry, alive = empirical_isometry(first, dictionary, metric), sizes[:CERTIFIED] > 0
    expected = {
        "r2": r2(error, centred),
        "r2_s": r2(metric.whiten(error), metric.whiten(centred)),
        "r2_uncentred": r2(error, x),
        "l0": sizes.double().mean().item(),
        "l0_median": k,
        "l0_q998": sizes.max().item(),
        "empty": (sizes == 0).double().mean().item(),
        "dead": (codes == 0).all(0).double().mean().item(),
        "single_sample": ((codes != 0).sum(0) == 1).double().mean().item(),
        "coherence": mutual_coherence(dictionary, metric),
        "certified_level_1": levels[0]["coherence"],
        "certified_level_2a": levels[1]["babel_unique"],
        "certified_level_2b": levels[1]["babel_recovery"],
        "certified_level_3": levels[1]["exact_recovery"],
        "certified_level_4": levels[1]["dual_certificate"],
        "stability_pairwise": stability_pairwise(dictionary, histogram, metric),
        "stability_per_atom": stability_per_atom(dictionary, histogram, metric),
        "isometry_ratio_low": isometry.ratio[alive].quantile(0.01).item(),
        "isometry_ratio_high": isometry.ratio[alive].quantile(0.99).item(),
        "isometry_own": isometry.constant.nanmedian().item(),
        "identifiable_a_priori": threshold_windows(first, dictionary, metric).feasible[alive].double().mean().item(),
        "restricted_isometry_k_low": bounds.lower,
        "restricted_isometry_k_high": bounds.upper,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert all(math.isfinite(value) for value in found.values())


@torch.no_grad()
def test_the_random_numbers_are_those_of_the_random_dictionary_at_the_same_support_sizes() -> None:
    sae, metric, every = trained()
    found, codes = measured(sae, metric, every), sae.encode(every[:MEASURED])
    drawn, sizes = random_dictionary(60, 12, torch.Generator().manual_seed(0)), support_sizes(codes)
    histogram = torch.bincount(sizes)
    assert found["stability_pairwise_random"] == pytest.approx(stability_pairwise(drawn, histogram))
    assert found["stability_per_atom_random"] == pytest.approx(stability_per_atom(drawn, histogram))
    levels = [recovery_levels(part, drawn).rates() for part in (codes, codes[:CERTIFIED])]  # sizes alone decide
    assert found["certified_level_1_random"] == pytest.approx(levels[0]["coherence"])
    assert found["certified_level_2a_random"] == pytest.approx(levels[1]["babel_unique"])
    assert found["certified_level_2b_random"] == pytest.approx(levels[1]["babel_recovery"])
    assert found["stability_pairwise_random"] != found["stability_pairwise"]


@torch.no_grad()
def test_codes_that_are_all_empty_give_nan_and_not_an_error() -> None:
    sae, metric, x = trained()
    sae.threshold.fill_(1e6)
    measurement = Measurement(sae, metric, null=True)
    measurement.update(x)
    found = measurement.values()
    assert (found["l0"], found["empty"], found["dead"]) == (0, 1, 1)
    names = ("certified_level_1", "certified_level_4", "certified_level_4_random", "isometry_ratio_low")
    for name in (*names, "restricted_isometry_k_low", "restricted_isometry_k_high"):
        assert math.isnan(found[name]), name
