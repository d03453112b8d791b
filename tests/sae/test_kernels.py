"""The Triton kernels: compiled where there is a CUDA device, in Triton's interpreter (tests/conftest.py) elsewhere."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atomlab.sae import L0, Sparsity, Tanh, TargetL0, ThresholdSAE
from atomlab.sae.ops import Dense, Sparse, TorchKernels, decode_csr, encode_csr, kernels_for
from atomlab.sae.sparse_code import Entries
from tests.sae.cases import LOSSES, assert_is_dense, case, gradients

if find_spec("triton") is None:
    pytest.skip("Triton comes with torch on Linux; here it is not installed.", allow_module_level=True)
from atomlab.sae.ops.triton_kernels import TritonKernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = TritonKernels(
    room=16, tile=(16, 16, 16), group=2
)  # several tiles, and an overflow, at sizes the interpreter can do


def fused_case(batch: int, d_in: int, d_sae: int, seed: int, **arguments: bool) -> tuple[ThresholdSAE, Tensor]:
    sae, x = case(batch, d_in, d_sae, seed, **arguments)
    return sae.to(DEVICE), x.to(DEVICE)


@pytest.mark.parametrize("sparsity", LOSSES, ids=str)
@pytest.mark.parametrize(
    ("tied", "ste_to_input", "apply_b_dec_to_input"), [(False, False, False), (True, False, True), (False, True, True)]
)
@settings(max_examples=3, deadline=None)
@given(batch=st.integers(2, 40), d_in=st.integers(1, 40), d_sae=st.integers(2, 50), seed=st.integers(0, 2**31))
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
    """As for the stock operators: float64, empty and full rows, a dead latent, a wide window, the dead latents'
    term."""
    sae, x = fused_case(
        batch, d_in, d_sae, seed, tied=tied, ste_to_input=ste_to_input, apply_b_dec_to_input=apply_b_dec_to_input
    )
    assert_is_dense(Sparse(SMALL), sae, x, sparsity)


@pytest.mark.parametrize("active", [0.0, 1.0])
def test_no_and_all_entries_active(active: float) -> None:
    sae, x = fused_case(24, 16, 40, 0)
    with torch.no_grad():
        sae.b_enc.fill_(1e3 * (2 * active - 1))
        sae.threshold.fill_(1.0)
    assert_is_dense(Sparse(SMALL), sae, x, L0(0.3))
    assert len(gradients(Sparse(SMALL), sae, x, L0(0.3))[0].code.z) == active * 24 * 40


@pytest.mark.parametrize("sparsity", [TargetL0(2.0, 3.0), Tanh(0.5, 2.0)], ids=str)
def test_bfloat16_autocast_sums_in_float32(sparsity: Sparsity) -> None:
    """Inputs and weights that are bfloat16 numbers: the same products as in float32, so z and f equal the float32
    reference's but for the order of summation. Only the decoder's gradient g = ∂ℓ/∂x̂ is rounded, by at most 2⁻⁹
    of each coordinate."""
    sae, x = case(40, 33, 50, 1, dtype=torch.float32)
    x = x.bfloat16().float()
    with torch.no_grad():
        sae.b_enc[-1] = 1.0
        for weight in (sae.W_enc, sae.W_dec):
            weight.copy_(weight.bfloat16())
    sae, x = sae.to(DEVICE), x.to(DEVICE)
    expected, wanted = gradients(Dense(), sae, x, sparsity)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        terms, found = gradients(Sparse(SMALL), sae, x, sparsity)
    assert terms.code.z.dtype == torch.float32
    assert torch.equal(terms.code.firings(), expected.code.firings())
    torch.testing.assert_close(terms.reconstruction, expected.reconstruction, rtol=1e-5, atol=0)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() <= 2**-8 * b.norm()


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 40),
    d_sae=st.integers(1, 40),
    room=st.integers(1, 200),
    bandwidth=st.sampled_from([0.0, 1.0, 2.0]),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_find_returns_all_entries_in_column_order_whatever_the_room(
    batch: int, d_sae: int, room: int, bandwidth: float, share: float, seed: int
) -> None:
    """Integers, so products are exact and some lie on the threshold or on the window's edge; a quarter off where the
    edge itself may be counted."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (batch, 5), generator=generator).double()
    atoms = torch.randint(-3, 4, (d_sae, 5), generator=generator).double()
    bias = torch.randint(-3, 4, (d_sae,), generator=generator).double()
    theta = (torch.randint(0, 40, (d_sae,), generator=generator).double() * share).round() + 0.25 * (bandwidth > 0)
    operands = [v.to(DEVICE) for v in (x, atoms, bias, theta)]
    z, entries = TritonKernels(room, (16, 16, 16), 2).find(*operands, bandwidth)
    products = atoms @ x.T + bias[:, None]
    kept = (products > theta[:, None]) | ((products - theta[:, None]).abs() < bandwidth / 2)
    columns, rows = kept.nonzero(as_tuple=True)
    assert torch.equal(entries.columns.cpu(), columns)
    assert torch.equal(entries.rows.cpu(), rows)
    assert torch.equal(z.cpu(), products[columns, rows])


@pytest.mark.parametrize("tile", [(16, 16, 16), (128, 128, 64)])
def test_every_tile_shape_covers_every_pair_once(tile: tuple[int, int, int]) -> None:
    """More blocks of rows than one group, the last group and the last tiles ragged."""
    x, atoms = torch.randn(300, 70, dtype=torch.float64), torch.randn(150, 70, dtype=torch.float64)
    none, all_of_them = torch.zeros(150, dtype=torch.float64), torch.full((150,), -1e9, dtype=torch.float64)
    operands = [v.to(DEVICE) for v in (x, atoms, none, all_of_them)]
    z, entries = TritonKernels(1 << 16, tile, 2).find(*operands, 0.0)
    pairs = torch.cartesian_prod(torch.arange(150), torch.arange(300))
    assert torch.equal(torch.stack([entries.columns, entries.rows], 1).cpu(), pairs)
    torch.testing.assert_close(z.cpu().view(150, 300), atoms @ x.T, rtol=1e-12, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 20),
    d_sae=st.integers(1, 20),
    width=st.integers(1, 600),
    number=st.integers(0, 60),
    seed=st.integers(0, 2**31),
)
def test_sums_over_entries_by_brute_force(batch: int, d_sae: int, width: int, number: int, seed: int) -> None:
    """Some weights are zero, some bags empty, some longer than a block; width above and below a block."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(0, batch * d_sae, (number,), generator=generator).sort().values
    entries = Entries((keys % batch).to(DEVICE), (keys // batch).to(DEVICE), batch, d_sae)
    x, atoms = (torch.randn(n, width, generator=generator, dtype=torch.float64).to(DEVICE) for n in (batch, d_sae))
    weights = torch.randn(number, generator=generator, dtype=torch.float64).relu().to(DEVICE)
    dots = (x[entries.rows] * atoms[entries.columns]).sum(1)
    torch.testing.assert_close(TritonKernels().sampled_dot(x, atoms, entries), dots, rtol=1e-11, atol=1e-11)
    sums = torch.zeros_like(atoms).index_add_(0, entries.columns, weights[:, None] * x[entries.rows])
    found = TritonKernels().bag_sum(x, entries.rows, entries.columns, weights, d_sae)
    torch.testing.assert_close(found, sums, rtol=1e-11, atol=1e-11)


def test_no_samples_give_no_entries() -> None:
    none = torch.zeros(0, 5, device=DEVICE)
    z, entries = TritonKernels().find(none, torch.ones(3, 5, device=DEVICE), *torch.zeros(2, 3, device=DEVICE), 0.1)
    assert (len(z), len(entries.rows), entries.batch) == (0, 0, 0)
    assert len(TritonKernels().sampled_dot(none, none, entries)) == 0
    assert TritonKernels().bag_sum(none, entries.rows, entries.rows, z, 0).shape == (0, 5)


def test_the_cpu_never_gets_them() -> None:
    assert isinstance(kernels_for(torch.device("cpu")), TorchKernels)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the other tests compile them")
def test_they_compile_for_an_h100_without_one(tmp_path: Path) -> None:
    """Through ptxas to machine code; the bfloat16 product runs on tensor cores and no sum is atomic."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.sae.compiled"],
        cwd=Path(__file__).parents[2], env=kept | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    product, bag_sum, sampled_dot = run.stdout.split(".version")[1:]
    assert "wgmma" in product
    atomic = re.compile(r"^\s*(@%p\d+ )?(atom|red)\.", re.MULTILINE)
    assert atomic.search(product)  # its slots
    assert not atomic.search(bag_sum + sampled_dot)


@pytest.mark.gpu
def test_a_cuda_device_gets_them_and_repeats_bit_for_bit() -> None:
    """bfloat16, sizes of several default tiles; the slots given out in different orders change nothing."""
    assert isinstance(kernels_for(torch.device("cuda")), TritonKernels)
    torch.manual_seed(0)
    sae, x = ThresholdSAE(700, 5000).cuda(), torch.randn(3000, 700, device="cuda") / 700**0.5
    with torch.no_grad():
        sae.threshold.fill_(0.1)
    torch.use_deterministic_algorithms(True)
    with torch.autocast("cuda", torch.bfloat16):
        runs = [gradients(Sparse(TritonKernels()), sae, x, TargetL0(1.0, 9.0)) for _ in range(2)]
        copies = [[g.clone() for g in found] for _, found in runs]
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*copies, strict=True))


@pytest.mark.gpu
def test_csr_codes_on_a_cuda_device_are_the_dense_codes() -> None:
    sae, x = case(50, 12, 60, 3)
    codes = encode_csr(sae.cuda(), x.cuda(), block=17)
    torch.testing.assert_close(codes.to_dense(), sae.encode(x.cuda()).detach(), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(decode_csr(codes, sae.W_dec, sae.b_dec), sae(x.cuda()).detach(), rtol=1e-12, atol=1e-9)
