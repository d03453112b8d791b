"""The pursuit in stages against a slow one with SciPy's solver, and its calibration."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from atomlab.coders import ThresholdPursuit, calibrate_threshold_pursuit, nonnegative_omp, refit, threshold_pursuit
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import encode_csr
from atomlab.theory import AtomicInnerProduct
from tests.coders.cases import DEAD, check_csr, gaussian, metric_of, problem, squared_errors, trained


def slow(
    sae: ThresholdSAE, x: torch.Tensor, pursuit: ThresholdPursuit, metric: AtomicInnerProduct | None
) -> torch.Tensor:
    root = torch.linalg.cholesky(metric.matrix) if metric else torch.eye(x.shape[1]).double()
    atoms, y = sae.W_dec.detach() @ root, (x - sae.b_dec.detach()) @ root
    z, theta = sae.pre_activations(x).detach(), sae.threshold.detach()
    codes = torch.zeros(len(x), sae.d_sae, dtype=torch.float64)
    for i in range(len(x)):
        support: set[int] = set()
        scores, joins = z[i] / theta, (z[i] > pursuit.first_scale * theta)
        for stage in range(pursuit.stages):
            if stage:
                scores = atoms @ (y[i] - codes[i] @ atoms) / atoms.norm(dim=1)
                joins = scores > pursuit.thresholds[stage - 1]
                joins[sorted(support)] = False
            new = sorted(joins.nonzero().squeeze(1).tolist(), key=lambda j: -float(scores[j]))
            chosen = sorted(support | set(new[: pursuit.most_joining]))
            codes[i] = 0
            if chosen:
                codes[i, chosen] = torch.from_numpy(nnls(atoms[chosen].T.numpy(), y[i].numpy())[0])
            support = set(codes[i].nonzero().squeeze(1).tolist())
    return codes


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.3, 3),
    thresholds=st.lists(st.floats(0.1, 2), max_size=3),
    most=st.integers(1, 12),
    in_metric=st.booleans(),
    block=st.integers(5, 60),
)
def test_codes_are_those_of_the_slow_pursuit(
    seed: int, scale: float, thresholds: list[float], most: int, in_metric: bool, block: int
) -> None:
    x, dictionary, bias = problem(samples=25, seed=seed)
    metric = metric_of(16) if in_metric else None
    sae, pursuit = trained(dictionary, bias, metric), ThresholdPursuit(scale, tuple(thresholds), most)
    codes = threshold_pursuit(sae, x, pursuit, metric, block=block)
    check_csr(codes, (25, 40), torch.float64)
    expected = slow(sae, x, pursuit, metric)
    torch.testing.assert_close(codes.to_dense() @ dictionary, expected @ dictionary, rtol=1e-6, atol=1e-6)
    few = (expected != 0).sum(1) <= 10  # unique values
    torch.testing.assert_close(codes.to_dense()[few], expected[few], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("in_metric", [False, True])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_calibrated_codes_have_the_wanted_mean_l0_and_each_stage_its_share(stages: int, in_metric: bool) -> None:
    x, dictionary, bias = problem(samples=500)
    metric = metric_of(16) if in_metric else None
    sae = trained(dictionary, bias, metric)
    pursuit = calibrate_threshold_pursuit(sae, x, 4.0, stages, metric, block=77)
    assert pursuit.stages == stages
    for stage in range(1, stages + 1):
        part = ThresholdPursuit(pursuit.first_scale, pursuit.thresholds[: stage - 1], pursuit.most_joining)
        reached = len(threshold_pursuit(sae, x, part, metric).values()) / 500
        assert reached == pytest.approx(4 * stage / stages, rel=0.005)
    codes = threshold_pursuit(sae, x, pursuit, metric)
    assert not codes.to_dense()[:, DEAD].any() or stages > 1  # a later stage may use what the encoder never fires


def test_more_stages_explain_more_at_one_l0_and_a_longer_pursuit_is_never_worse() -> None:
    """Planted codes: the refit beats the own code, two stages the refit, and greedy pursuit is near the last."""
    x, dictionary, bias = problem(samples=500, d_sae=80, d_in=32)
    sae, y = trained(dictionary, bias), x - bias
    one, two = (calibrate_threshold_pursuit(sae, x, 5.0, stages) for stages in (1, 2))
    first, second = (squared_errors(y, dictionary, threshold_pursuit(sae, x, p), None) for p in (one, two))
    assert second.sum() < 0.9 * first.sum()
    greedy = squared_errors(y, dictionary, nonnegative_omp(y, dictionary, 5), None)
    assert greedy.sum() < first.sum()
    longer = ThresholdPursuit(two.first_scale, (*two.thresholds, 0.2))
    third = squared_errors(y, dictionary, threshold_pursuit(sae, x, longer), None)
    assert (third <= second * (1 + 1e-9)).all()


def test_one_stage_at_the_own_thresholds_is_the_refit_of_the_own_code() -> None:
    x, dictionary, bias = problem()
    sae = trained(dictionary, bias)
    codes = threshold_pursuit(sae, x, ThresholdPursuit(1.0))
    assert torch.equal(codes.to_dense(), refit(x - bias, dictionary, encode_csr(sae, x)).to_dense())


def test_a_metric_is_whitening_of_vectors_and_atoms() -> None:
    x, dictionary, bias = problem()
    metric = metric_of(16)
    sae = trained(dictionary, bias, metric)
    white = trained(dictionary, bias, metric)
    with torch.no_grad():
        white.W_dec.copy_(metric.whiten(sae.W_dec))
        white.b_dec.copy_(metric.whiten(sae.b_dec))
        white.W_enc.copy_(metric.unwhitening @ sae.W_enc)
    pursuit = ThresholdPursuit(1.2, (0.8, 0.5))
    codes, other = threshold_pursuit(sae, x, pursuit, metric), threshold_pursuit(white, metric.whiten(x), pursuit)
    torch.testing.assert_close(codes.to_dense(), other.to_dense(), rtol=1e-7, atol=1e-9)


def test_permuted_and_scaled_atoms_have_permuted_and_divided_values() -> None:
    x, dictionary, bias = problem()
    sae = trained(dictionary, bias)
    order, scale = gaussian(40, seed=9).argsort(), torch.logspace(2, -2, 40).double()
    moved = sae.with_weights(
        sae.W_enc[:, order], sae.b_enc[order], (sae.W_dec * scale[:, None])[order], sae.b_dec, sae.threshold[order]
    )
    pursuit = ThresholdPursuit(1.2, (0.8, 0.5))
    codes, other = (threshold_pursuit(each, x, pursuit).to_dense() for each in (sae, moved))
    torch.testing.assert_close(other, (codes / scale)[:, order], rtol=1e-7, atol=1e-10)


def test_latents_without_a_threshold_and_double_and_zero_atoms_are_calibrated_too() -> None:
    x, dictionary, bias = problem(samples=500)
    sae = trained(dictionary, bias)
    with torch.no_grad():
        sae.threshold[[2, 30]] = 0
        sae.W_dec[11], sae.W_dec[12] = sae.W_dec[10], 0
    pursuit = calibrate_threshold_pursuit(sae, x, 4.0, 2)
    codes = threshold_pursuit(sae, x, pursuit)
    check_csr(codes, (500, 40), torch.float64)
    assert len(codes.values()) / 500 == pytest.approx(4, rel=0.02)
    assert not codes.to_dense()[:, 12].any()


def test_an_encoder_that_hardly_fires_is_made_up_for_by_later_stages() -> None:
    x, dictionary, bias = problem(samples=500)
    sae = trained(dictionary, bias)
    with torch.no_grad():
        sae.b_enc[2:] = -1e9
    pursuit = calibrate_threshold_pursuit(sae, x, 4.0, 2)
    assert pursuit.first_scale == 0
    assert len(threshold_pursuit(sae, x, pursuit).values()) / 500 == pytest.approx(4, rel=0.02)


def test_float32_vectors_and_autocast_reach_the_calibrated_l0_and_float32_codes() -> None:
    x, dictionary, bias = problem(samples=500)
    sae = trained(dictionary, bias).float()
    pursuit = calibrate_threshold_pursuit(sae, x.float(), 4.0, 2)
    with torch.autocast("cpu", torch.bfloat16):
        codes = threshold_pursuit(sae, x.float(), pursuit)
    check_csr(codes, (500, 40), torch.float32)
    assert len(codes.values()) / 500 == pytest.approx(4, rel=0.02)
    wide = threshold_pursuit(sae.double(), x, pursuit)
    same = (codes.to_dense() != 0) == (wide.to_dense() != 0)
    assert same.double().mean() > 0.999
    np.testing.assert_allclose(codes.to_dense()[same].numpy(), wide.to_dense()[same].numpy(), rtol=2e-3, atol=2e-3)


def test_no_vectors_have_no_codes() -> None:
    x, dictionary, bias = problem()
    codes = threshold_pursuit(trained(dictionary, bias), x[:0], ThresholdPursuit(1.0, (0.5,)))
    check_csr(codes, (0, 40), torch.float64)


def test_an_l0_out_of_reach_and_settings_out_of_range_are_refused() -> None:
    x, dictionary, bias = problem(samples=100)
    sae = trained(dictionary, bias)
    with pytest.raises(ValueError, match="reaches a mean L0"):
        calibrate_threshold_pursuit(sae, x, 30.0, 2)
    with pytest.raises(ValueError, match="reaches a mean L0 of 1"):
        calibrate_threshold_pursuit(sae, x, 4.0, 1, most_joining=1)
    with pytest.raises(ValueError, match="stages=0"):
        calibrate_threshold_pursuit(sae, x, 4.0, 0)
    with pytest.raises(ValueError, match="target_l0=41"):
        calibrate_threshold_pursuit(sae, x, 41.0)
    with pytest.raises(ValueError, match="got 0 vectors"):
        calibrate_threshold_pursuit(sae, x[:0], 4.0)
    with pytest.raises(ValueError, match="0 or more"):
        ThresholdPursuit(-1.0)
    with pytest.raises(ValueError, match="0 or more"):
        ThresholdPursuit(1.0, (torch.nan,))
