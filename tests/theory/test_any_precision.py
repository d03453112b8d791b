"""The theory's numbers do not depend on autocast (faults.md D2), nor on the dtype that its inputs are stored in (D10)."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab import theory
from atomlab.autocast import autocast_dtype, no_autocast
from atomlab.theory import (
    MARGIN,
    AtomicInnerProduct,
    coherence_statistics,
    dual_certificates,
    exact_recovery_coefficients,
    isometry_ratios,
)
from tests.theory.calls import CALLS, NO_FLOATS, inputs, numbers
from tests.theory.examples import KINDS, example

AMBIENT = [torch.bfloat16, torch.float16]


def test_every_public_function_is_called() -> None:
    public = {name for name in theory.__all__ if inspect.isfunction(inspect.unwrap(getattr(theory, name)))}
    assert set(CALLS) == public - NO_FLOATS


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_no_bit(name: str) -> None:
    """D2: the float32 screen of the certificates was bfloat16 inside autocast, and the coherence .98047 for .97913."""
    expected = numbers(CALLS[name](inputs()))
    for dtype in AMBIENT:
        with torch.autocast("cpu", dtype):
            found = numbers(CALLS[name](inputs()))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a.nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))


@pytest.mark.parametrize("dtype", AMBIENT)
@pytest.mark.parametrize("name", CALLS)
def test_16_bit_inputs_give_what_their_float32_copies_give(name: str, dtype: torch.dtype) -> None:
    """D10: codes whose sum is beyond float16 were said to be NaN. A result of 16 bits is the wide one, rounded."""
    expected = numbers(CALLS[name](inputs()))
    for a, b in zip(numbers(CALLS[name](inputs().to(dtype))), expected, strict=True):
        assert torch.equal(a.nan_to_num(nan=-7.0), b.to(a.dtype).nan_to_num(nan=-7.0))


def test_a_metric_of_large_numbers_whitens_float16_vectors() -> None:
    """Activations of size 1e-6 have a metric beyond float16's range; their whitened vectors are within it."""
    metric = AtomicInnerProduct(1e12 * torch.eye(4, dtype=torch.float64))
    tiny = torch.full((2, 4), 2.0**-20)
    assert torch.equal(metric.whiten(tiny.half()), (tiny * 1e6).half())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(4, 40),
    d=st.integers(2, 24),
    kind=st.sampled_from(KINDS),
    ambient=st.sampled_from(AMBIENT),
    stored=st.sampled_from([torch.float32, torch.float64]),
)
def test_certificates_never_certify_more_under_autocast(
    seed: int, n: int, d: int, kind: str, ambient: torch.dtype, stored: torch.dtype
) -> None:
    """D2: the margins are those without autocast, bit for bit, and so is what they certify."""
    dictionary, codes = (tensor.to(stored) for tensor in example(seed, n, d, kind))
    signed = codes * torch.where(codes > 1, -1, 1)

    def found() -> list[torch.Tensor]:
        statistics = coherence_statistics(dictionary, k=3)
        return [
            dual_certificates(codes, dictionary),
            dual_certificates(signed, dictionary, one_sided=False),
            exact_recovery_coefficients(codes, dictionary),
            isometry_ratios(codes, dictionary),
            statistics.per_atom,
            statistics.babel,
        ]

    expected = found()
    with torch.autocast("cpu", ambient):
        under = found()
    for a, b in zip(under[:3], expected[:3], strict=True):
        assert not ((a < 1 - MARGIN) & ~(b < 1 - MARGIN)).any()
    for a, b in zip(under, expected, strict=True):
        assert torch.equal(a.nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))


def test_autocast_is_on_again_afterwards() -> None:
    cpu, x = torch.device("cpu"), torch.randn(3, 3)
    with torch.autocast("cpu", torch.float16):
        with no_autocast():
            assert autocast_dtype(cpu) is None
            assert (x @ x).dtype == torch.float32
        assert autocast_dtype(cpu) == torch.float16
        assert (x @ x).dtype == torch.float16
    assert autocast_dtype(cpu) is None
    assert autocast_dtype(torch.device("meta")) is None  # which has no autocast at all
