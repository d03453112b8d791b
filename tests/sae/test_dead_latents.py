"""The term that pulls dead latents back to their thresholds, against the formula written out (faults.md D3)."""

import pytest
import torch

from atomlab.sae import TargetL0, ThresholdSAE
from atomlab.sae.ops import Dense, Operators, Sparse, TorchKernels, objective

OPERATORS: dict[str, Operators] = {
    "dense": Dense(),
    "sparse": Sparse(TorchKernels(False)),
    "screened": Sparse(TorchKernels(True)),
}
D_SAE = 12


def case(**options: bool) -> tuple[ThresholdSAE, torch.Tensor]:
    """Thresholds on either side of the pre-activations, atoms of different norms."""
    torch.manual_seed(0)
    sae = ThresholdSAE(7, D_SAE, bandwidth=0.2, **options).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        sae.threshold.copy_(torch.rand(D_SAE) * 2)
    return sae, torch.randn(9, 7, dtype=torch.float64)


def pulled(sae: ThresholdSAE, x: torch.Tensor, dead: list[int], coefficient: float) -> torch.Tensor:
    """λ · mean over samples of Σ_{j dead} max(0, θ_j − z_j)·‖d_j‖, one number at a time."""
    total = x.new_zeros(())
    centred = x - sae.b_dec if sae.apply_b_dec_to_input else x
    for j in dead:
        for sample in centred:
            z = (sample * sae.W_enc[:, j]).sum() + sae.b_enc[j]
            total = total + torch.clamp(sae.threshold[j] - z, min=0) * sae.W_dec[j].square().sum().sqrt()
    return coefficient * total / len(x)


@pytest.mark.parametrize("dead", [[3, 7, 11], [11], [0, 5], [0, 1, 2], list(range(D_SAE)), []], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"apply_b_dec_to_input": True}], ids=str)
def test_value_and_gradient_are_the_formulas(name: str, dead: list[int], options: dict[str, bool]) -> None:
    """D3: any set of dead latents but a prefix raised IndexError. In float64, where nothing ties."""
    sae, x = case(**options)
    mask = torch.zeros(D_SAE, dtype=torch.bool)
    mask[dead] = True
    sparsity = TargetL0(0.3, 2.0)
    plain = objective(OPERATORS[name], sae, x, sparsity)
    (plain.loss + pulled(sae, x, dead, 0.7)).backward()
    expected = {key: p.grad.clone() for key, p in sae.named_parameters() if p.grad is not None}
    sae.zero_grad()
    terms = objective(OPERATORS[name], sae, x, sparsity, mask, 0.7)
    terms.loss.backward()
    torch.testing.assert_close(terms.sparsity - plain.sparsity, pulled(sae, x, dead, 0.7))
    for key, p in sae.named_parameters():
        torch.testing.assert_close(p.grad, expected[key], msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("word", OPERATORS)
def test_scattered_dead_latents_fire_again(word: str) -> None:
    """The term does what it is for: six latents whose thresholds no vector reaches fire after some steps, and without
    the term they never do."""
    fired = []
    for coefficient in (0.05, 0.0):
        torch.manual_seed(0)
        sae, x = ThresholdSAE(8, 24, bandwidth=0.1), torch.randn(256, 8)
        dead = torch.zeros(24, dtype=torch.bool)
        dead[[2, 5, 9, 14, 20, 23]] = True
        with torch.no_grad():
            sae.threshold[dead] = 8.0
        assert not (sae.encode(x) > 0)[:, dead].any()
        optimizer = torch.optim.Adam(sae.parameters(), 0.05)
        ever = torch.zeros(24, dtype=torch.bool)
        for _ in range(80):
            silent = ~(sae.encode(x) > 0).any(0)
            ever |= ~silent
            objective(OPERATORS[word], sae, x, None, silent & dead, coefficient).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sae.unit_norm_decoder_()
            sae.clamp_thresholds_()
        fired.append(int(ever[dead].sum()))
    assert fired == [6, 0]
