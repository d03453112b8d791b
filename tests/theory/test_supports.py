"""Dense codes and CSR codes are the same codes, explicit zeros, signs and empty samples included."""

import dataclasses
import inspect
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab import theory
from atomlab.theory import firing_counts, first_samples, support_sizes, supports
from tests.theory.calls import CALLS, inputs, numbers


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


OF_CODES = [name for name in CALLS if "codes" in inspect.signature(getattr(theory, name)).parameters]


@pytest.mark.parametrize("name", [name for name in OF_CODES if name != "first_samples"])
@pytest.mark.parametrize("zeros", [False, True])
def test_every_function_of_codes_reads_csr_codes(name: str, zeros: bool) -> None:
    """Explicit zeros are no nonzeros: they would count in K, in Gram matrices and in refits."""
    given_inputs = inputs()
    sparse = csr(given_inputs.codes)
    if zeros:  # stored where the codes are 0, in every row and at its end
        stored = given_inputs.codes.clone()
        stored[:, [0, 7, -1]] += (stored[:, [0, 7, -1]] == 0).float()
        sparse = csr(stored)
        rows = torch.arange(len(stored)).repeat_interleave(sparse.crow_indices().diff())
        sparse.values()[:] = given_inputs.codes[rows, sparse.col_indices()]
    found = numbers(CALLS[name](dataclasses.replace(given_inputs, codes=sparse)))
    for a, b in zip(found, numbers(CALLS[name](given_inputs)), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("budget", [1, 7, 40, 10_000])
def test_parts_of_like_size_cover_every_sample_once_within_the_budget(budget: int) -> None:
    sizes = [3, 0, 5, 1, 5, 2, 0, 9, 1, 3, 4]
    codes = torch.zeros(len(sizes), 12)
    for row, k in zip(codes, sizes, strict=True):
        row[torch.randperm(12, generator=torch.Generator().manual_seed(k))[:k]] = torch.arange(1.0, k + 1)
    chosen = supports(codes)
    parts = chosen.by_size(lambda k: k * k, budget)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(sizes)))
    for part in parts:
        taken = chosen.take(part)
        widest = max(1, max(sizes[row] for row in part))
        assert taken.indices.shape == (len(part), widest)
        assert len(part) == 1 or len(part) * widest**2 <= budget
        again = torch.zeros(len(part), 12)
        for row, (indices, mask, values) in enumerate(zip(taken.indices, taken.mask, taken.values, strict=True)):
            again[row, indices[mask]] = values[mask]
        assert torch.equal(again, codes[part])
    smallest = [min(sizes[row] for row in part) for part in parts]
    largest = [max(sizes[row] for row in part) for part in parts]
    assert all(low >= high for low, high in zip(smallest, largest[1:], strict=False))  # sizes do not overlap
