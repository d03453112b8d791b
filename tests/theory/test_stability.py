"""theory.md 5, q*: against the definition, tried at every q of a fine grid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.theory import stability_pairwise, stability_per_atom


def by_definition(coherences: np.ndarray, sizes: np.ndarray) -> float:
    best = 0.0
    for q in np.linspace(0, 1, 2001)[1:]:
        k = max(1, np.quantile(sizes, q, method="inverted_cdf"))
        if np.quantile(coherences, q, method="inverted_cdf") < 1 / (2 * k - 1):
            best = q
    return best


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 25), d=st.integers(2, 12), top=st.integers(1, 6))
def test_both_readings_are_the_supremum_of_their_definition(seed: int, n: int, d: int, top: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n, d, generator=generator, dtype=torch.float64)
    sizes = torch.randint(0, top + 1, (40,), generator=generator)
    histogram = torch.bincount(sizes, minlength=top + 1)
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    gram = (unit @ unit.T).abs().fill_diagonal_(-1)
    pairs = gram[~torch.eye(n, dtype=torch.bool)]
    assert stability_per_atom(dictionary, histogram) == pytest.approx(
        by_definition(gram.amax(1).numpy(), sizes.numpy()), abs=6e-4
    )
    pairwise, exact = stability_pairwise(dictionary, histogram), by_definition(pairs.numpy(), sizes.numpy())
    assert pairwise <= exact + 6e-4  # rounding up to the bins may only lower it, by the pairs within a bin
    near = ((pairs[:, None] - 1 / (2 * torch.arange(1, top + 1) - 1)).abs() < 2e-5).double().mean().item() * top
    assert pairwise >= exact - 6e-4 - near


def test_orthonormal_atoms_are_stable_and_no_codes_have_no_index() -> None:
    assert stability_per_atom(torch.eye(4), torch.tensor([0, 0, 5])) == 1
    assert np.isnan(stability_pairwise(torch.eye(4), torch.tensor([0, 0])))
