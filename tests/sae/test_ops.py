"""The sparse implementation against the dense reference (autograd through the equations), and its kernels against
brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.sae import L0, Sparsity, TargetL0
from atomlab.sae.ops import Dense, Sparse, TorchKernels, decode_csr, encode_csr, torch_kernels
from atomlab.sae.ops.tiled_select import select
from atomlab.sae.sparse_code import Entries
from tests.sae.cases import LOSSES, assert_is_dense, case, gradients


@pytest.mark.parametrize("sparsity", LOSSES, ids=str)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ste_to_input", [False, True])
@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
@settings(max_examples=8, deadline=None)
@given(batch=st.integers(2, 40), d_in=st.integers(1, 20), d_sae=st.integers(2, 80), seed=st.integers(0, 2**31))
def test_loss_and_gradients_are_those_of_the_dense_reference(
    sparsity: Sparsity | None,
    tied: bool,
    ste_to_input: bool,
    apply_b_dec_to_input: bool,
    batch: int,
    d_in: int,
    d_sae: int,
    seed: int,
) -> None:
    sae, x = case(
        batch, d_in, d_sae, seed, tied=tied, ste_to_input=ste_to_input, apply_b_dec_to_input=apply_b_dec_to_input
    )
    assert_is_dense(Sparse(TorchKernels(screened=False)), sae, x, sparsity)


@pytest.mark.parametrize("screened", [False, True])
@pytest.mark.parametrize("active", [0.0, 1.0])
def test_no_and_all_entries_active(screened: bool, active: float) -> None:
    sae, x = case(24, 16, 40, 0, dtype=torch.float32)
    with torch.no_grad():
        sae.b_enc.fill_(1e3 * (2 * active - 1))
        sae.threshold.fill_(1.0)
    expected, wanted = gradients(Dense(), sae, x, L0(0.3))
    terms, found = gradients(Sparse(TorchKernels(screened)), sae, x, L0(0.3))
    assert len(terms.code.z) == active * 24 * 40
    torch.testing.assert_close(terms.loss, expected.loss)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("sparsity", LOSSES, ids=str)
def test_bfloat16_autocast(sparsity: Sparsity | None) -> None:
    """The same bfloat16 encoder product, so the same support; the dense decoder rounds its operands, each by at most
    2⁻⁸."""
    sae, x = case(64, 32, 100, 1, dtype=torch.float32)
    with torch.no_grad():
        sae.b_enc[-1] = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        expected, wanted = gradients(Dense(), sae, x, sparsity)
        terms, found = gradients(Sparse(TorchKernels()), sae, x, sparsity)
    assert torch.equal(terms.code.firings(), expected.code.firings())
    torch.testing.assert_close(terms.loss, expected.loss, rtol=3 * 2**-8, atol=0)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() <= 4 * 2**-8 * b.norm()  # two operands, the output, and the loss's gradient through x̂


def test_results_repeat_bit_for_bit() -> None:
    sae, x = case(200, 48, 300, 2, dtype=torch.float32)
    for operators in (Sparse(TorchKernels(False)), Sparse(TorchKernels(True))):
        (first, a), (second, b) = (
            (terms, [g.clone() for g in found])
            for terms, found in (gradients(operators, sae, x, TargetL0(1.0, 9.0)) for _ in range(2))
        )
        assert torch.equal(first.loss, second.loss)
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 30),
    d_sae=st.integers(1, 30),
    tile=st.integers(1, 12),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_select_finds_all_products_at_or_above_the_floor_in_column_order(
    batch: int, d_sae: int, tile: int, share: float, seed: int
) -> None:
    """Integers, so products are exact and some of them equal the floor."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (batch, 5), generator=generator).double()
    atoms = torch.randint(-3, 4, (d_sae, 5), generator=generator).double()
    floor = torch.randint(-40, 40, (d_sae,), generator=generator).double() * share
    values, entries = select(x, atoms, floor.round(), tile)
    products = atoms @ x.T
    columns, rows = (products >= floor.round()[:, None]).nonzero(as_tuple=True)
    assert torch.equal(entries.columns, columns)
    assert torch.equal(entries.rows, rows)
    assert torch.equal(values, products[columns, rows])


def test_bag_sums_and_sampled_dots_by_hand() -> None:
    table = torch.arange(12, dtype=torch.float64).view(4, 3)
    bags, index = torch.tensor([0, 0, 2]), torch.tensor([1, 3, 0])
    found = torch_kernels.bag_sum(table, index, bags, torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64), 4)
    expected = torch.stack([2 * table[1] - table[3], 0 * table[0], 0.5 * table[0], 0 * table[0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    entries = Entries(torch.tensor([2, 0, 1]), torch.tensor([0, 1, 1]), 3, 2)
    x, atoms = table[:3], table[2:]
    expected = torch.stack([x[2] @ atoms[0], x[0] @ atoms[1], x[1] @ atoms[1]])
    torch.testing.assert_close(torch_kernels.sampled_dot(x, atoms, entries), expected, rtol=0, atol=0)


@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
def test_csr_codes_are_the_dense_codes(apply_b_dec_to_input: bool) -> None:
    sae, x = case(50, 12, 60, 3, apply_b_dec_to_input=apply_b_dec_to_input)
    codes = encode_csr(sae, x, block=17)
    assert (codes.values() > 0).all()
    assert torch.equal(codes.col_indices(), sae.encode(x).nonzero()[:, 1])  # ascending within a row
    torch.testing.assert_close(codes.to_dense(), sae.encode(x).detach(), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(decode_csr(codes, sae.W_dec, sae.b_dec), sae(x).detach(), rtol=1e-12, atol=1e-9)
    assert encode_csr(sae, x[:0]).shape == (0, 60)
