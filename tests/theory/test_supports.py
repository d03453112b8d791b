"""Dense codes and CSR codes are the same codes, explicit zeros, signs and empty samples included."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import firing_counts, first_samples, support_sizes, supports


def csr(codes: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return codes.to_sparse_csr()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(0, 9),
    d_sae=st.integers(1, 20),
    density=st.floats(0, 1),
    signed=st.booleans(),
    explicit_zeros=st.booleans(),
)
def test_layouts_agree(seed: int, samples: int, d_sae: int, density: float, signed: bool, explicit_zeros: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(samples, d_sae, generator=generator)
    codes = codes if signed else codes.abs()
    codes *= torch.rand(samples, d_sae, generator=generator) < density
    sparse = csr(codes)
    if explicit_zeros and sparse.values().numel():
        sparse.values()[::2] = 0
        codes = sparse.to_dense()
    assert support_sizes(sparse).tolist() == support_sizes(codes).tolist() == (codes != 0).sum(1).tolist()
    assert firing_counts(sparse).tolist() == firing_counts(codes).tolist() == (codes != 0).sum(0).tolist()
    for given_codes in (codes, sparse):
        chosen = supports(given_codes)
        again = torch.zeros_like(codes)
        for row, (indices, mask, values) in enumerate(zip(chosen.indices, chosen.mask, chosen.values, strict=True)):
            again[row, indices[mask]] = values[mask]
        assert torch.equal(again, codes)
        assert not chosen.values[~chosen.mask].any()
    for count in (1, samples, samples + 3):
        part = first_samples(sparse, count)
        assert torch.equal(part.to_dense(), codes[:count])
        assert torch.equal(first_samples(codes, count), codes[:count])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_found_in_either_layout(value: float) -> None:
    codes = torch.eye(3)
    codes[1, 2] = value
    for given_codes in (codes, csr(codes)):
        for read in (support_sizes, firing_counts, supports):
            with pytest.raises(ValueError, match="NaN or infinite"):
                read(given_codes)
