"""theory.md 7: gradients by hand and by finite differences; folding and files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from atomlab import load_sae, save_sae
from atomlab.sae import (
    L0,
    InputTransform,
    Tanh,
    TargetL0,
    ThresholdSAE,
    calibrate_thresholds_,
    fold,
    step,
    threshold_activation,
)
from atomlab.sae.losses import pre_activation_penalty
from atomlab.sae.sparse_code import Code

EPS = 0.4


def random_sae(d_in: int = 5, d_sae: int = 9, **arguments) -> ThresholdSAE:
    torch.manual_seed(0)
    sae = ThresholdSAE(d_in, d_sae, **arguments).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn_like(parameter))
        sae.threshold.abs_()
    return sae


def test_activation_and_its_gradients_by_hand() -> None:
    z = torch.tensor([[0.9, 1.1, 1.3, 0.7, -2.0]], dtype=torch.float64, requires_grad=True)  # θ = 1, window (0.8, 1.2)
    theta = torch.ones(5, dtype=torch.float64, requires_grad=True)
    out = threshold_activation(z, theta, EPS)
    torch.testing.assert_close(out.detach(), torch.tensor([[0, 1.1, 1.3, 0, 0]], dtype=torch.float64))
    out.backward(torch.tensor([[2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64))
    assert z.grad is not None
    assert theta.grad is not None
    torch.testing.assert_close(z.grad, torch.tensor([[0, 3.0, 4.0, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(
        theta.grad, -torch.tensor([2.0, 3.0, 0, 0, 0], dtype=torch.float64) / EPS
    )  # −(θ/ε)K g, below θ too


def test_ste_to_input_adds_the_jump() -> None:
    z = torch.tensor([[0.9, 1.1]], dtype=torch.float64, requires_grad=True)
    threshold_activation(z, torch.ones(2, dtype=torch.float64), EPS, True).sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor([[1 / EPS, 1 + 1 / EPS]], dtype=torch.float64))


def test_step_gradient_is_that_of_the_ramp_on_average() -> None:
    """H smoothed by the window is a ramp of width ε; its derivative in θ, by central differences, is the
    estimator's."""
    z = torch.linspace(-1, 3, 4001, dtype=torch.float64)[:, None]
    theta = torch.tensor([0.93], dtype=torch.float64, requires_grad=True)
    step(z, theta, EPS).sum().backward()

    def ramp(t: float) -> float:
        return float(((z - t) / EPS + 0.5).clamp(0, 1).sum())

    h = 1e-4
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(
        (ramp(0.93 + h) - ramp(0.93 - h)) / (2 * h), rel=2e-3
    )  # one grid point in 400


def test_thresholds_stay_float32_under_bfloat16() -> None:
    theta = torch.ones(3, requires_grad=True)
    z = torch.tensor([[0.95, 1.05, 3.0]], dtype=torch.bfloat16, requires_grad=True)
    out = threshold_activation(z, theta, 0.4)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert theta.grad is not None
    assert theta.grad.dtype == torch.float32
    assert z.grad is not None
    assert z.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("sparsity", "factor"), [(L0(0.3), 0.3), (TargetL0(2.0, 3.0), 2 * 2 * (0 / 3 - 1) / 3)])
def test_sparsity_reaches_below_the_threshold_and_only_thresholds(sparsity, factor: float) -> None:
    """∂L0/∂θ_j = −1/ε where all samples are in the window; `factor` is the derivative of the term in L0, at L0 = 0."""
    sae = random_sae()
    z = (sae.threshold.detach() - 0.005).expand(4, -1).clone().requires_grad_()  # inside the window, below θ: f = 0
    codes = sae.activate(z)
    assert not codes.any()
    sparsity(sae, Code(z, codes, None, 4)).backward()
    expected = torch.full((9,), -factor / sae.bandwidth, dtype=torch.float64)
    torch.testing.assert_close(sae.threshold.grad, expected)
    assert z.grad is None


def test_values_of_the_losses() -> None:
    sae, x = random_sae(), torch.randn(6, 5, dtype=torch.float64)
    z = sae.pre_activations(x)
    codes = sae.activate(z)
    code = Code(z, codes, None, 6)
    l0 = (codes != 0).sum(1).double().mean()
    torch.testing.assert_close(L0(0.3)(sae, code), 0.3 * l0)
    torch.testing.assert_close(TargetL0(2.0, 3.0)(sae, code), 2 * (l0 / 3 - 1) ** 2)
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(Tanh(0.5, 4.0)(sae, code), 0.5 * torch.tanh(4 * codes * norms).sum(1).mean())
    dead = [7, 2, 4]
    below, sizes = (sae.threshold - z).tolist(), norms.tolist()
    terms = [max(0.0, row[j]) * sizes[j] for row in below for j in dead]
    assert 0 < sum(term > 0 for term in terms) < len(terms)
    found = pre_activation_penalty(z[:, dead], sae.threshold[dead], norms[dead])
    assert found.item() == pytest.approx(sum(terms) / 6, rel=1e-12)


def test_tied_is_free_with_the_same_weights() -> None:
    tied, x = random_sae(tied=True), torch.randn(7, 5, dtype=torch.float64)
    free = tied.with_weights(tied.W_enc, tied.b_enc, tied.W_dec, tied.b_dec, tied.threshold)
    assert "W_enc" not in tied.state_dict()
    torch.testing.assert_close(tied(x), free(x))
    for sae in (tied, free):
        sae(x).square().sum().backward()
    torch.testing.assert_close(tied.W_dec.grad, free.W_dec.grad + free.W_enc.grad.T)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_folding_keeps_the_function_and_the_codes(centred: bool, tied: bool) -> None:
    sae = random_sae(apply_b_dec_to_input=centred, tied=tied)
    matrix = torch.randn(5, 5, dtype=torch.float64)
    transform = InputTransform(torch.randn(5, dtype=torch.float64), matrix, torch.linalg.inv(matrix))
    folded, x = fold(sae, transform), torch.randn(50, 5, dtype=torch.float64)
    torch.testing.assert_close(folded(x), transform.restore(sae(transform(x))))
    torch.testing.assert_close(folded.encode(x), sae.encode(transform(x)))


def test_scaled_transform_gives_unit_mean_square() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 3
    matrix = torch.randn(4, 4, dtype=torch.float64)
    transform = InputTransform.scaled(x.mean(0), matrix, torch.linalg.inv(matrix), x.T @ x / 400)
    assert transform(x.float()).square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(transform.restore(transform(x.float())), x.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", [True, False])
def test_unit_norm_projection_its_gradient_and_the_equal_function(metric: bool) -> None:
    sae, x = random_sae(), torch.randn(7, 5, dtype=torch.float64)
    root = torch.randn(5, 5, dtype=torch.float64)
    given = root @ root.T if metric else None
    gram = torch.eye(5, dtype=torch.float64) if given is None else given
    equal = sae.with_unit_norm_decoder(given)
    torch.testing.assert_close(equal(x), sae(x))
    torch.testing.assert_close(
        torch.einsum("nd,de,ne->n", equal.W_dec, gram, equal.W_dec), torch.ones(9, dtype=torch.float64)
    )
    sae.unit_norm_decoder_(given)
    norms = torch.einsum("nd,de,ne->n", sae.W_dec, gram, sae.W_dec).detach()
    torch.testing.assert_close(norms, torch.ones(9, dtype=torch.float64))
    sae(x).square().sum().backward()
    assert sae.W_dec.grad is not None
    before = sae.W_dec.grad.clone()
    sae.remove_parallel_gradient_(given, block=4)
    for atom, old, new in zip(sae.W_dec.detach(), before, sae.W_dec.grad, strict=True):
        normal = (gram @ atom)[:, None]
        share = torch.linalg.lstsq(normal, old[:, None]).solution  # what is left is least squares' residual
        torch.testing.assert_close(new, (old[:, None] - normal @ share)[:, 0])
        assert new.norm() > 0


def test_calibration_reaches_its_target_on_the_sample() -> None:
    """With biases, and in blocks of latents of which the last is ragged."""
    torch.manual_seed(0)
    sae, x = ThresholdSAE(8, 64, apply_b_dec_to_input=True), torch.randn(2000, 8) + 3
    with torch.no_grad():
        sae.b_dec.copy_(torch.randn(8) + 3)
        sae.b_enc.copy_(torch.linspace(-1, 1, 64))
        sae.b_enc[::9] = -5.0  # these are positive on too few samples, so that θ = 0
    found = calibrate_thresholds_(sae, x, 5.0, block=27)
    share = (sae.encode(x) != 0).sum(0) / 2000
    assert found == pytest.approx(float(share.sum()), abs=1e-6)  # rounding decides nothing: no sample lies on θ
    reached = sae.threshold > 0
    assert 0 < (~reached).sum() < 32
    torch.testing.assert_close(share[reached], torch.full_like(share[reached], 5 / 64), rtol=0, atol=1.5 / 2000)
    assert (share[~reached] < 5 / 64).all()
    for target in (0.0, 64.0):
        with pytest.raises(ValueError, match="target L0"):
            calibrate_thresholds_(sae, x, target)


def test_a_folder_holds_the_same_function_in_the_fields_format(tmp_path: Path) -> None:
    sae = random_sae().float()
    save_sae(sae, tmp_path / "sae", {"model_name": "m"})
    x = torch.randn(4, 5)
    torch.testing.assert_close(load_sae(tmp_path / "sae")(x), sae(x))
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "W_enc": (5, 9), "b_enc": (9,), "W_dec": (9, 5), "b_dec": (5,), "threshold": (9,),
    }  # fmt: skip
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu"
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert sorted(p.name for p in (tmp_path / "sae").iterdir()) == ["SHA256SUMS", "cfg.json", "sae_weights.safetensors"]


def test_bad_folders_and_sizes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no SAE of a known format \(it is empty\)"):
        load_sae(tmp_path)
    save_sae(random_sae(), tmp_path, {})
    (tmp_path / "SHA256SUMS").unlink()
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"metadata": {}}))  # as others write it: without a checksum
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file(weights | {"b_enc": torch.full((9,), torch.nan)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="b_enc"):
        load_sae(tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"12345678901")
    with pytest.raises(ValueError, match="damaged"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text('{"architecture": "temporal"}')
    with pytest.raises(ValueError, match="temporal"):
        load_sae(tmp_path)
    with pytest.raises(ValueError, match="d_sae=0"):
        ThresholdSAE(4, 0)
    zero = random_sae()
    nn.init.zeros_(zero.W_dec)
    with pytest.raises(ValueError, match="Atom 0"):
        zero.with_unit_norm_decoder()
