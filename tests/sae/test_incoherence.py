"""The incoherence term against its definition by loops, and what its gradient does to two atoms."""

import itertools

import pytest
import torch

from atomlab.sae import Incoherence, ThresholdSAE, incoherence_penalty
from atomlab.theory import mutual_coherence, random_dictionary


@pytest.mark.parametrize("chosen", [[0], [3, 8, 8], list(range(11))])
def test_it_is_the_mean_over_chosen_atoms_of_what_exceeds_the_bound(chosen: list[int]) -> None:
    atoms = random_dictionary(11, 5, torch.Generator().manual_seed(0)).double()
    atoms[4] = -atoms[3]  # opposite atoms count like equal ones
    wanted = sum(
        max(0.0, abs(float(atoms[i] @ atoms[j])) - 0.3) ** 2 for i, j in itertools.product(chosen, range(11)) if i != j
    ) / len(chosen)
    found = incoherence_penalty(atoms.requires_grad_(), torch.tensor(chosen), 0.3)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-6)
    assert torch.autograd.gradcheck(lambda d: incoherence_penalty(d, torch.tensor(chosen), 0.3), (atoms,))


def test_atoms_below_the_bound_are_left_alone_and_twins_are_moved_apart() -> None:
    sae = ThresholdSAE(8, 8, tied=True)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(8))
        sae.W_dec[1] = torch.nn.functional.normalize(torch.eye(8)[0] + 0.2 * torch.eye(8)[1], dim=0)
    term, generator = Incoherence(1.0, 0.25, rows=64), torch.Generator().manual_seed(0)
    before = sae.W_dec.detach().clone()
    for _ in range(200):
        sae.zero_grad()
        term(sae, generator).backward()
        assert sae.W_dec.grad is not None
        with torch.no_grad():
            sae.W_dec -= 0.1 * sae.W_dec.grad
        sae.unit_norm_decoder_()
    assert mutual_coherence(sae.W_dec.detach()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(sae.W_dec[2:].detach(), before[2:])


def test_rows_are_drawn_from_all_atoms() -> None:
    """With as many rows as it takes, the mean over draws is the mean over all atoms."""
    sae = ThresholdSAE(5, 40).double()
    whole = float(incoherence_penalty(sae.W_dec.detach(), torch.arange(40), 0.25))
    drawn = [float(Incoherence(1.0, 0.25, 64)(sae, torch.Generator().manual_seed(i)).detach()) for i in range(300)]
    spread = torch.tensor(drawn).std() / 300**0.5
    assert abs(sum(drawn) / 300 - whole) < 5 * spread
