"""An epoch's numbers against the theory's functions on all vectors at once, and against chance."""

import math

import pytest
import torch

from atomlab.sae import ThresholdSAE
from atomlab.theory import (
    AtomicInnerProduct,
    isometry_ratios,
    mutual_coherence,
    recovery_levels,
    restricted_isometry_bounds,
    stability_pairwise,
    stability_per_atom,
    support_sizes,
)
from atomlab.training.measurement import Measurement


def trained() -> tuple[ThresholdSAE, AtomicInnerProduct, torch.Tensor]:
    torch.manual_seed(0)
    sae = ThresholdSAE(12, 20, bandwidth=0.1, tied=True)
    with torch.no_grad():
        sae.threshold.fill_(0.6)
    x = torch.randn(90, 12)
    return sae, AtomicInnerProduct.from_second_moment(x.T @ x / len(x)), x


@torch.no_grad()
def test_an_epoch_in_uneven_batches_gives_the_theorys_numbers() -> None:
    sae, metric, x = trained()
    measurement = Measurement(sae, metric, certificate_samples=50, null=True)
    for batch in x.split([40, 7, 43]):
        measurement.update(batch)
    found = measurement.values()
    codes, dictionary = sae.encode(x), sae.W_dec.detach()
    sizes, first = support_sizes(codes), codes[:50]
    assert sizes.max() >= 2
    histogram = torch.bincount(sizes)
    levels, some = (
        recovery_levels(codes, dictionary, metric).rates(),
        recovery_levels(first, dictionary, metric).rates(),
    )
    bounds = restricted_isometry_bounds(dictionary, int(sizes.median()), metric)
    expected = {
        "r2": 1 - ((x - sae.decode(codes)).square().sum() / (x - x.mean(0)).square().sum()).item(),
        "l0": sizes.double().mean().item(),
        "dead": (codes == 0).all(0).double().mean().item(),
        "coherence": mutual_coherence(dictionary, metric),
        "certified_level_1": levels["coherence"],
        "certified_level_2a": levels["babel_unique"],
        "certified_level_2b": levels["babel_recovery"],
        "certified_level_3": some["exact_recovery"],
        "certified_level_4": some["dual_certificate"],
        "stability_pairwise": stability_pairwise(dictionary, histogram, metric),
        "stability_per_atom": stability_per_atom(dictionary, histogram, metric),
        "isometry_ratio_mean": isometry_ratios(codes, dictionary, metric).nanmean().item(),
        "restricted_isometry_lower": bounds.lower,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    order = [found[f"certified_level_{level}_null"] for level in ("1", "2b")]
    assert order == sorted(order)
    assert found["certified_level_3_null"] <= found["certified_level_4_null"]
    assert all(math.isfinite(value) for value in found.values())


@torch.no_grad()
@pytest.mark.parametrize(("asked", "seen"), [(45, 45), (None, 90)])
def test_the_s_norm_r2_is_over_the_first_vectors_or_all(asked: int | None, seen: int) -> None:
    sae, metric, x = trained()
    measurement = Measurement(sae, metric, s_norm_samples=asked)
    for batch in x.split(40):
        measurement.update(batch)
    first = x[:seen].double()
    error, centred = first - sae(x[:seen]), first - first.mean(0)
    expected = 1 - (metric.norm(error).square().sum() / metric.norm(centred).square().sum()).item()
    assert measurement.values()["r2_s"] == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_a_random_dictionary_is_like_its_own_null() -> None:
    """The control: nothing but chance in the dictionary, so the value and its null agree up to the draw."""
    sae, _, x = trained()
    sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(20, 12), dim=1))
    measurement = Measurement(sae, AtomicInnerProduct(torch.eye(12, dtype=torch.float64)), null=True)
    measurement.update(x)
    found = measurement.values()
    for name in ("stability_pairwise", "certified_level_1"):
        assert found[name] == pytest.approx(found[f"{name}_null"], abs=0.2), name


@torch.no_grad()
def test_codes_that_are_all_empty_give_nan_and_not_an_error() -> None:
    sae, metric, x = trained()
    sae.threshold.fill_(1e6)
    measurement = Measurement(sae, metric, null=True)
    measurement.update(x)
    found = measurement.values()
    assert found["l0"] == 0
    assert found["dead"] == 1
    for name in ("certified_level_1", "certified_level_4", "certified_level_4_null", "isometry_ratio_mean"):
        assert math.isnan(found[name]), name
