"""The four architectures beside the TSAE: their codes against loops over single numbers, and what keeps them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from atomlab.sae import BaselineSAE, BatchTopK, Gated, InputTransform, Relu, TopK, fold
from atomlab.sae.ops import decode_csr, encode_csr

D_IN, D_SAE, K = 5, 9, 3
MADE: dict[str, Callable[[], Relu | TopK | BatchTopK | Gated]] = {
    "relu": Relu, "top_k": lambda: TopK(K), "batch_top_k": lambda: BatchTopK(K, 0.4), "gated": lambda: Gated(D_SAE)
}  # fmt: skip
KINDS = list(MADE)


def sae_of(kind: str, *, centred: bool = False) -> BaselineSAE:
    """Every parameter random."""
    torch.manual_seed(0)
    sae = BaselineSAE(D_IN, D_SAE, MADE[kind](), apply_b_dec_to_input=centred).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return sae


def vectors(count: int = 40) -> Tensor:
    return torch.randn(count, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def product(sae: BaselineSAE, x: Tensor, j: int) -> float:
    """x·w_j, of x − b_dec where that is subtracted."""
    return sum(
        (float(x[i]) - float(sae.b_dec[i]) * sae.apply_b_dec_to_input) * float(sae.W_enc[i, j]) for i in range(D_IN)
    )


def code_by_hand(sae: BaselineSAE, x: Tensor) -> list[float]:
    """One vector's code from the definition of its architecture, with Python numbers."""
    u = [product(sae, x, j) for j in range(D_SAE)]
    z = [u[j] + float(sae.b_enc[j]) for j in range(D_SAE)]
    match sae.activation:
        case Relu():
            return [max(0.0, value) for value in z]
        case TopK():
            best = sorted(range(D_SAE), key=lambda j: -z[j])[:K]
            return [max(0.0, z[j]) if j in best else 0.0 for j in range(D_SAE)]
        case BatchTopK():
            return [value if value > 0.4 else 0.0 for value in z]
        case Gated(r_mag=r, b_mag=b):
            magnitude = [max(0.0, math.exp(float(r[j])) * u[j] + float(b[j])) for j in range(D_SAE)]
            return [magnitude[j] if z[j] > 0 else 0.0 for j in range(D_SAE)]


@torch.no_grad()
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_code_is_that_of_the_definition(kind: str, centred: bool) -> None:
    sae, x = sae_of(kind, centred=centred), vectors()
    expected = torch.tensor([code_by_hand(sae, one) for one in x], dtype=torch.float64)
    codes = sae.encode(x)
    torch.testing.assert_close(codes, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(codes > 0, expected > 0)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    csr = encode_csr(sae, x, block=7)
    assert torch.equal(csr.to_dense(), codes)
    torch.testing.assert_close(decode_csr(csr, sae.W_dec, sae.b_dec), sae(x))
    torch.testing.assert_close(sae(x), codes @ sae.W_dec + sae.b_dec, rtol=0, atol=0)
    chosen = torch.tensor([6, 2])
    torch.testing.assert_close(sae.pre_activations(x, chosen), sae.pre_activations(x)[:, chosen])


@torch.no_grad()
def test_a_training_batch_of_batch_top_k_keeps_its_largest_values() -> None:
    sae, x = sae_of("batch_top_k"), vectors()
    z = sae.pre_activations(x)
    pairs = sorted(((float(z[i, j]), i, j) for i in range(40) for j in range(D_SAE)), reverse=True)[: 40 * K]
    expected = torch.zeros_like(z)
    for value, i, j in pairs:
        expected[i, j] = max(0.0, value)
    code = sae.batch_code(x)
    assert torch.equal(code.values, expected)
    assert (code.values > 0).sum(1).unique().numel() > 1  # vectors differ in how many they have
    assert torch.equal(code.firings(), (expected > 0).sum(0))


@torch.no_grad()
def test_the_threshold_of_batch_top_k_follows_the_smallest_kept_value() -> None:
    activation = BatchTopK(1)
    for z, expected in (([[5.0, 1.0], [2.0, 3.0]], 3.0), ([[9.0, 0.0], [13.0, 4.0]], 3.6), ([[-1.0], [-2.0]], 3.6)):
        activation.of_batch(torch.tensor(z), torch.zeros(len(z[0])))
        assert float(activation.threshold) == pytest.approx(expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "top_k"])
@pytest.mark.parametrize("centred", [False, True])
def test_all_but_top_k_are_a_one_step_threshold_code(kind: str, centred: bool) -> None:
    sae, x = sae_of(kind, centred=centred), vectors()
    torch.testing.assert_close(sae.one_step().encode(x), sae.encode(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sae.one_step()(x), sae(x))
    assert torch.equal(sae.threshold, sae.one_step().threshold)


@torch.no_grad()
def test_the_one_step_code_of_top_k_contains_its_own() -> None:
    sae, x = sae_of("top_k"), vectors()
    more, own = sae.one_step().encode(x), sae.encode(x)
    assert torch.equal(own[own > 0], more[own > 0])
    assert int((more > 0).sum()) > int((own > 0).sum())


@torch.no_grad()
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_it_is_the_same_function_of_raw_vectors(kind: str, centred: bool) -> None:
    sae, x = sae_of(kind, centred=centred), vectors()
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(D_IN, D_IN, generator=generator, dtype=torch.float64)
    transform = InputTransform(torch.arange(5.0).double(), matrix, torch.linalg.inv(matrix))
    folded = fold(sae, transform)
    torch.testing.assert_close(folded.encode(x), sae.encode(transform(x)))
    torch.testing.assert_close(folded(x), transform.restore(sae(transform(x))))


@torch.no_grad()
@pytest.mark.parametrize("gram", [None, torch.diag(torch.arange(1.0, 6)).double()], ids=["Euclidean", "in a metric"])
@pytest.mark.parametrize("kind", KINDS)
def test_unit_norms_keep_the_function(kind: str, gram: Tensor | None) -> None:
    sae, x = sae_of(kind), vectors()
    scaled = sae.with_unit_norm_decoder(gram)
    torch.testing.assert_close(scaled(x), sae(x))
    norms = (scaled.W_dec @ (torch.eye(5).double() if gram is None else gram) * scaled.W_dec).sum(1).sqrt()
    if kind in ("relu", "gated"):
        torch.testing.assert_close(norms, torch.ones(D_SAE).double())
    else:  # one factor for all, since it decides which latents are the largest
        assert float(norms.mean()) == pytest.approx(1)
        assert torch.equal(scaled.encode(x) > 0, sae.encode(x) > 0)


def test_no_gradient_of_a_gated_code_reaches_the_bias_of_the_gate() -> None:
    """Where the gate is open f = e^r u + b_mag, so ∂f/∂b_gate = 0, ∂f/∂b_mag = 1 and ∂f/∂r = e^r u."""
    sae, x = sae_of("gated"), vectors()
    codes = sae.encode(x)
    codes.sum().backward()
    gated = sae.activation
    assert isinstance(gated, Gated)
    assert sae.b_enc.grad is not None
    torch.testing.assert_close(sae.b_enc.grad, torch.zeros(D_SAE).double(), rtol=0, atol=1e-12)
    open_ = (codes > 0).detach().double()
    torch.testing.assert_close(gated.b_mag.grad, open_.sum(0))
    u = (sae.pre_activations(x) - sae.b_enc).detach()
    torch.testing.assert_close(gated.r_mag.grad, (open_ * gated.r_mag.detach().exp() * u).sum(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TopK(0), "k=0 should be a number of latents"),
        (lambda: BatchTopK(True), "k=True should be a number of latents"),
        (lambda: BatchTopK(2, -1.0), "threshold of 0 or more, got -1.0"),
        (lambda: BaselineSAE(0, 4, Relu()), "above 0, got d_in=0"),
    ],
)
def test_senseless_sizes_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_with_fewer_latents_than_k_all_are_kept() -> None:
    sae = BaselineSAE(3, 2, TopK(5))
    x = torch.randn(4, 3)
    assert torch.equal(sae.encode(x), sae.pre_activations(x).relu())
