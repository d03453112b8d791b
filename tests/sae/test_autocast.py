"""What is measured of a TSAE, and what is made from it, is the same whether autocast is on or not (faults.md B1)."""

import pytest
import torch

from atomlab.sae import InputTransform, ThresholdSAE, calibrate_thresholds_, fold
from atomlab.sae.losses import TargetL0
from atomlab.sae.ops import Dense, DensitySwitch, Operators, decode_csr, encode_csr, objective

AMBIENT = [torch.bfloat16, torch.float16]
X = torch.randn(700, 24, generator=torch.Generator().manual_seed(0))


def made(**options: bool) -> ThresholdSAE:
    torch.manual_seed(1)
    sae = ThresholdSAE(24, 96, bandwidth=0.1, **options)
    with torch.no_grad():
        sae.b_dec.normal_(std=0.3)
        sae.b_enc.normal_(std=0.1)
    calibrate_thresholds_(sae, X, 9.0)
    return sae


@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"apply_b_dec_to_input": True}], ids=str)
def test_codes_and_reconstructions_are_equal(ambient: torch.dtype, options: dict[str, bool]) -> None:
    """B1: 80,967 active entries inside autocast, 80,906 without. 16-bit vectors are coded as their float32 copies are."""
    sae = made(**options)
    codes = encode_csr(sae, X)
    x_hat = decode_csr(codes, sae.W_dec, sae.b_dec)
    rounded = encode_csr(sae, X.to(ambient).float()).to_dense()
    with torch.autocast("cpu", ambient):
        found = encode_csr(sae, X)
        assert not torch.equal(sae.encode(X) > 0, codes.to_dense() > 0)  # the product in 16 bits decides otherwise
        assert torch.equal(found.to_dense(), codes.to_dense())
        assert torch.equal(decode_csr(found, sae.W_dec, sae.b_dec), x_hat)
        assert torch.equal(encode_csr(sae, X.to(ambient)).to_dense(), rounded)


@pytest.mark.parametrize("ambient", AMBIENT)
def test_calibration_and_folding_are_equal(ambient: torch.dtype) -> None:
    matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(2))
    inverse, gram = torch.linalg.inv(matrix), matrix @ matrix.T

    def finished() -> dict[str, torch.Tensor]:
        sae = made()
        transform = InputTransform(X.mean(0), matrix, inverse)
        return fold(sae, transform).with_unit_norm_decoder(gram).state_dict() | {"x": transform.restore(transform(X))}

    expected = finished()
    with torch.autocast("cpu", ambient):
        for name, value in finished().items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("word", ["dense", "sparse", "screened"])
def test_losses_and_gradients_stay_float32(ambient: torch.dtype, word: str) -> None:
    """The step's products are of 16 bits; its sums, its loss and what the optimiser adds up are not."""
    sae = made()
    operators: Operators = DensitySwitch.of(word).choose(sae, X) if word != "dense" else Dense()
    transform = InputTransform(X.mean(0), torch.eye(24), torch.eye(24))
    with torch.autocast("cpu", ambient):
        x = transform(X)
        terms = objective(operators, sae, x, TargetL0(1.0, 4.0), torch.arange(96) % 5 == 0, 0.1)
    for value in (x, terms.loss, terms.reconstruction, terms.sparsity):
        assert value.dtype == torch.float32
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in sae.parameters())
