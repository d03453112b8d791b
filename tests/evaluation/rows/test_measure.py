"""Rows of the table on dictionaries whose every number is known."""

import math

import pytest
import torch

from atomlab.activations.store.moments import Moments, exact_moments
from atomlab.evaluation import measure
from atomlab.evaluation.rows.certify import certify
from atomlab.evaluation.rows.firing import firing_shares
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import euclidean_coherence, metric_disagreement
from atomlab.evaluation.rows.rates_by_support_size import in_ranges
from atomlab.evaluation.surrogates import gaussian_vectors
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report.all_columns import CLOSING
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct
from atomlab.units import Unit, atoms, neurons

D = 8
SIZES = SampleSizes(measured=300, certified=100, solved=40, supports=8, batch=64, resampled=50)
METRIC = AtomicInnerProduct(torch.eye(D, dtype=torch.float64))


def planted(count: int, seed: int, atoms: torch.Tensor, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(count, len(atoms))
    for row in codes:
        row[torch.randperm(len(atoms), generator=generator)[:k]] = 1 + torch.rand(k, generator=generator)
    return codes @ atoms


def numbers(value: object) -> list[float]:
    """All numbers at any depth, in order; NaN for what is missing."""
    if isinstance(value, dict | list):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]
    return [] if isinstance(value, str) else [math.nan if value is None else float(value)]  # type: ignore[arg-type]


def measured(
    unit: Unit, train: torch.Tensor, test: torch.Tensor, metric: AtomicInnerProduct, sizes: SampleSizes
) -> dict:
    return measure(unit, train, HeldOut.independent(test), metric, sizes)[0]


def certified(unit: Unit, train: torch.Tensor, test: torch.Tensor) -> dict:
    return certify(unit, measured(unit, train, test, METRIC, SIZES), train, HeldOut.independent(test), METRIC, SIZES)


def orthogonal() -> Unit:
    """Orthonormal atoms with the threshold encoder: everything is certified."""
    return Unit("atoms", torch.eye(D), torch.zeros(D), lambda x: x * (x > 0.5), signed=False, coder="one-step")


def test_orthonormal_atoms_are_certified_at_every_level_and_identified() -> None:
    train, test = planted(300, 0, torch.eye(D), 3), planted(300, 1, torch.eye(D), 3)
    row = certify(
        orthogonal(),
        measured(orthogonal(), train, test, METRIC, SIZES),
        train,
        HeldOut.independent(test),
        METRIC,
        SIZES,
    )
    rates = [key for key in row if key.startswith(("certified_level", "solved_level", "identifiable"))]
    ends = [key for key in rates if key.endswith("_interval")]
    assert [row[key] for key in ends] == [{"low": 1.0, "high": 1.0}] * 7
    rates = [key for key in rates if key not in ends]
    assert len(rates) == 10
    assert {key: row[key] for key in rates} == dict.fromkeys(rates, 1.0)
    assert [row[f"r2{norm}{split}"] for split in ("_train", "") for norm in ("", "_s", "_uncentred")] == [1.0] * 6
    assert (row["coherence"], row["l0"], row["l0_median"], row["l0_q998"]) == (0, 3, 3, 3)
    assert (row["stability_pairwise"], row["stability_per_atom"]) == (1.0, 1.0)
    assert row["isometry_unique"] == {"certified": 1.0, "failed": 0.0, "undecided": 0.0}
    assert row["restricted_isometry_2k"]["high"] == pytest.approx(0, abs=1e-12)
    assert row["by_k"]["samples"] == [0, 0, 0, 100]
    assert row["by_k"]["certified_level_3"][3] == 1.0
    assert (row["by_k"]["samples_solved"], row["by_k"]["solved_level_5"][3]) == ([0, 0, 0, 40], 1.0)
    assert row["r2_s_after_refit"] == pytest.approx(1)


@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
def test_sparse_codes_give_every_number_of_dense_ones(apply_b_dec_to_input: bool) -> None:
    """Two encoders that differ in the summation order of float32 products only: a code may appear at its threshold in
    one of them alone, which no seed here does.
    """
    torch.manual_seed(0)
    sae = ThresholdSAE(D, 20, apply_b_dec_to_input=apply_b_dec_to_input).requires_grad_(False)
    sae.threshold[:], sae.b_enc[:], sae.b_dec[:] = 0.4, 0.1 * torch.randn(20), 0.1 * torch.randn(D)
    sparse = atoms(sae)
    dense = Unit("atoms", sae.W_dec, sae.b_dec, sae.encode, signed=False, coder="one-step")
    train, test = planted(300, 0, torch.eye(D), 3), planted(300, 1, torch.eye(D), 3)
    assert sparse.encode(test).layout == torch.sparse_csr
    torch.testing.assert_close(sparse.encode(test).to_dense(), sae.encode(test))
    torch.testing.assert_close(sparse.reconstruct(test), sae(test))
    rows = [
        certify(unit, measured(unit, train, test, METRIC, SIZES), train, HeldOut.independent(test), METRIC, SIZES)
        for unit in (sparse, dense)
    ]
    assert rows[0].keys() == rows[1].keys()
    assert numbers(rows[0]) == pytest.approx(numbers(rows[1]), rel=1e-5, abs=1e-6, nan_ok=True)


def test_the_table_says_how_far_s_is_from_the_metric_of_the_atoms() -> None:
    """faults.md D10: against the matrices themselves. Orthonormal atoms give the Euclidean metric, and as S they agree;
    atoms that do not span the space give none.
    """
    root = torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = root @ root.T + torch.eye(D)
    dictionary = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
    own = torch.linalg.inv(dictionary.double().T @ dictionary.double())
    cosine = float((s * own).sum() / s.norm() / own.norm())
    found = metric_disagreement(dictionary, AtomicInnerProduct(s))
    assert found == pytest.approx(math.sqrt(1 - cosine**2), abs=1e-9)
    train = planted(300, 0, torch.eye(D), 3)
    row = measured(orthogonal(), train, train, METRIC, SIZES)
    assert row["metric_disagreement"] == pytest.approx(0, abs=1e-7)  # the root of what 1 − cos² loses to rounding
    assert metric_disagreement(dictionary[: D - 1], METRIC) is None


def test_levels_keep_their_order_on_coherent_atoms() -> None:
    generator = torch.Generator().manual_seed(4)
    atoms = torch.nn.functional.normalize(torch.randn(12, D, generator=generator), dim=1)
    unit = Unit(
        "atoms", atoms, torch.zeros(D), lambda x: (x @ atoms.T - 0.9).clamp(min=0), signed=False, coder="one-step"
    )
    train, test = planted(300, 0, atoms, 2), planted(300, 1, atoms, 2)
    row = certify(unit, measured(unit, train, test, METRIC, SIZES), train, HeldOut.independent(test), METRIC, SIZES)
    rate = {key.split("_")[-1]: row[key] for key in row if "_level_" in key}
    assert 0 < rate["4"] < 1
    assert rate["2b"] <= min(rate["2a"], rate["3"])
    for line in in_ranges(row["by_k"]):
        assert line["certified_level_2b"] <= min(line["certified_level_2a"], line["certified_level_3"])
        assert line["certified_level_3"] <= line["certified_level_4"]
    for level, samples in (("certified_level_3", "samples"), ("solved_level_5", "samples_solved")):
        lines = [line for line in in_ranges(row["by_k"]) if line[samples]]
        pooled = sum(line[level] * line[samples] for line in lines) / sum(line[samples] for line in lines)
        assert pooled == pytest.approx(row[level])
    assert rate["3"] <= rate["signed"] < rate["4"]
    assert sum(row["isometry_stable"].values()) == pytest.approx(1)


def test_neurons_have_r2_of_one_and_no_levels() -> None:
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    metric = AtomicInnerProduct(torch.eye(300, dtype=torch.float64))
    sizes = SampleSizes(measured=300, certified=20, batch=64, supports=2, resampled=50)
    row = certify(neurons(300), measured(neurons(300), x, x, metric, sizes), x, HeldOut.independent(x), metric, sizes)
    assert (row["r2"], row["l0"], row["certified_level_4"]) == (1.0, 300.0, None)
    assert "certified_level_3" not in row


def test_uncentred_and_centred_r2_are_their_definitions() -> None:
    x = torch.randn(300, D, generator=torch.Generator().manual_seed(0)) + 3
    row = measured(orthogonal(), x, x, METRIC, SIZES)
    x_hat = (x * (x > 0.5)).double()
    error = (x.double() - x_hat).square().sum()
    assert row["r2_uncentred"] == pytest.approx(float(1 - error / x.double().square().sum()), abs=1e-9)
    assert row["r2"] == pytest.approx(float(1 - error / (x.double() - x.double().mean(0)).square().sum()), abs=1e-9)


def test_l0_and_q_are_of_their_own_split_and_empty_codes_are_counted_apart() -> None:
    train, test = planted(300, 0, torch.eye(D), 3), planted(300, 1, torch.eye(D), 2)
    test[:75] = 0
    unit = orthogonal()
    coherent = Unit(
        "atoms", torch.nn.functional.normalize(torch.eye(D) + 0.12, dim=1), unit.bias, unit.encode, False, "one-step"
    )
    row = measured(coherent, train, test, METRIC, SIZES)
    assert (row["l0_train"], row["l0"], row["empty"]) == (3, 1.5, 0.25)
    assert row["samples_certified"] < SIZES.certified
    assert 1 / 5 < row["coherence"] < 1 / 3  # μ < 1/(2K − 1) at K = 2 and not at 3
    assert (row["stability_pairwise_train"], row["stability_pairwise"]) == (0, 1)


def test_an_atom_that_fires_once_and_one_that_never_does_are_counted() -> None:
    train = planted(300, 0, torch.eye(D)[:6], 2)
    train[0] = torch.eye(D)[6] * 2
    found = firing_shares(orthogonal(), train.split(70))
    assert found == {"dead": 1 / D, "single_sample": 1 / D, "samples_fired": 300}


def test_gaussian_vectors_have_the_datas_mean_and_covariance_and_nothing_else() -> None:
    x = planted(4000, 0, torch.eye(D), 2) + 1
    moments = exact_moments(x)
    assert (moments.count, moments.second_moment.dtype) == (4000, torch.float64)
    torch.testing.assert_close(moments.second_moment, x.double().T @ x.double() / 4000)
    drawn = gaussian_vectors(moments, 100_000, torch.Generator().manual_seed(0))
    # Means of 1e5 draws of variance v scatter by √(v/1e5), products by about √2 v/√1e5: five standard deviations.
    variance = float((moments.second_moment - torch.outer(moments.mean, moments.mean)).diagonal().max())
    assert (drawn.double().mean(0) - moments.mean).abs().max() < 5 * math.sqrt(variance / 1e5)
    difference = torch.cov(drawn.double().T) - (moments.second_moment - torch.outer(moments.mean, moments.mean))
    assert difference.abs().max() < 5 * math.sqrt(2) * variance / math.sqrt(1e5)


def test_moments_of_few_vectors_give_gaussians_in_their_span() -> None:
    x = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    found = exact_moments(x)
    drawn = gaussian_vectors(Moments(3, found.mean, found.second_moment), 50, torch.Generator().manual_seed(1))
    assert int(torch.linalg.matrix_rank((drawn - found.mean.float()).double(), rtol=1e-5)) == 2


def test_a_protocol_that_measures_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="loss_tokens=0"):
        SampleSizes(loss_tokens=0)


def test_the_table_has_coherence_in_both_norms() -> None:
    """Against all pairs of the atoms, which the metric pulls apart."""
    dictionary = torch.randn(12, D, generator=torch.Generator().manual_seed(5))
    unit = torch.nn.functional.normalize(dictionary, dim=1)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0)
    found = euclidean_coherence(3 * dictionary)
    assert found["coherence_euclidean"] == pytest.approx(float(cosines.max()), abs=1e-6)
    assert found["coherence_euclidean_mean"] == pytest.approx(float(cosines.amax(1).mean()), abs=1e-6)
    train = planted(300, 0, torch.eye(D), 3)
    row = measured(orthogonal(), train, train, METRIC, SIZES)
    assert row["coherence_euclidean"] == pytest.approx(0, abs=1e-6)
    closing = {column.key for column in CLOSING}
    assert {"coherence", "coherence_euclidean"} <= closing
