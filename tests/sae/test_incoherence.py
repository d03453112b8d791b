"""The incoherence term against its definition by loops, and what its gradient does to two atoms."""

import pytest
import torch

from atomlab.sae import Incoherence, ThresholdSAE, incoherence_penalty
from atomlab.theory import mutual_coherence, random_dictionary


def excess(cosines: torch.Tensor, chosen: list[int], bound: float, nearest: int) -> float:
    """The definition by loops over pairs, from the |cos| of all of them."""
    total = 0.0
    for i in chosen:
        others = [float(cosines[i, j]) for j in range(len(cosines)) if j != i]
        total += sum(max(0.0, cosine - bound) ** 2 for cosine in sorted(others, reverse=True)[:nearest])
    return total / len(chosen)


@pytest.mark.parametrize("chosen", [[0], [3, 8, 8], list(range(11))])
@pytest.mark.parametrize("nearest", [1, 3, 10, 50])
def test_it_is_the_mean_over_chosen_atoms_of_what_exceeds_the_bound(chosen: list[int], nearest: int) -> None:
    atoms = random_dictionary(11, 5, torch.Generator().manual_seed(0)).double()
    atoms /= atoms.norm(dim=1, keepdim=True)
    atoms[4] = torch.nn.functional.normalize(1e-2 * atoms[5] - atoms[3], dim=0)  # opposite atoms count like equal ones

    def penalty(given: torch.Tensor) -> torch.Tensor:
        return incoherence_penalty(given, torch.tensor(chosen), 0.3, nearest)

    assert float(penalty(atoms)) == pytest.approx(excess((atoms @ atoms.T).abs(), chosen, 0.3, nearest), rel=1e-9)
    assert torch.autograd.gradcheck(penalty, (atoms.requires_grad_(),))


def test_atoms_below_the_bound_are_left_alone_and_twins_are_moved_apart() -> None:
    sae = ThresholdSAE(8, 8, tied=True)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(8))
        sae.W_dec[1] = torch.nn.functional.normalize(torch.eye(8)[0] + 0.2 * torch.eye(8)[1], dim=0)
    term, generator = Incoherence(1.0, 0.25, rows=64, every=1), torch.Generator().manual_seed(0)
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
    whole = float(incoherence_penalty(sae.W_dec.detach(), torch.arange(40), 0.25, 8))
    drawn = [
        float(Incoherence(1.0, 0.25, 64, 8, every=1)(sae, torch.Generator().manual_seed(i)).detach())
        for i in range(300)
    ]
    spread = torch.tensor(drawn).std() / 300**0.5
    assert abs(sum(drawn) / 300 - whole) < 5 * spread


def test_a_step_in_n_has_the_term_n_times_as_strong() -> None:
    sae = ThresholdSAE(5, 40)
    one, three = (Incoherence(1.0, 0.25, 64, 8, every) for every in (1, 3))
    assert [step for step in range(7) if three.acts_in(step)] == [0, 3, 6]
    assert not Incoherence(0.0).acts_in(0)
    drawn = [term(sae, torch.Generator().manual_seed(0)) for term in (one, three)]
    torch.testing.assert_close(3 * drawn[0], drawn[1])
