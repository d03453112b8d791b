"""What is changed of some atoms: f′ = factor · f + added."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


@final
@dataclass(frozen=True)
class AtomEdit:
    """A change of the activations f of some atoms: f′ = factor · f + added.

    `ablate`, `scale` and `add` make the usual ones; factor 0 with an `added` sets the atoms to that value.

    Attributes:
        atoms: numbers of the atoms, which are rows of W_dec; None means all atoms.
        factor: multiplies their activations.
        added: is added to them afterwards, in the units of the SAE's activations.
    """

    atoms: Sequence[int] | None
    factor: float = 1.0
    added: float = 0.0

    def check(self, d_sae: int) -> None:
        """Raises ValueError unless every atom is one of the numbers 0 to d_sae − 1."""
        for atom in self.atoms or ():
            if not 0 <= atom < d_sae:
                raise ValueError(
                    f"Atom {atom} does not exist: the SAE has {d_sae} atoms, counted from 0 to {d_sae - 1}."
                )

    def applied(self, codes: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_sae"]:
        """Returns new codes in which the atoms are changed; the argument stays as it is."""
        if self.atoms is None:
            return self.factor * codes + self.added
        changed, atoms = codes.clone(), torch.tensor(self.atoms, dtype=torch.int64, device=codes.device)
        changed[:, atoms] = self.factor * codes[:, atoms] + self.added
        return changed


def ablate(*atoms: int) -> AtomEdit:
    """Switches atoms off: f′ = 0. Without numbers, all of them.

    Args:
        atoms: numbers of the atoms.

    Returns:
        The edit, for `splice` and `steer`.

    >>> ablate(3, 17)
    AtomEdit(atoms=(3, 17), factor=0.0, added=0.0)
    """
    return AtomEdit(atoms or None, factor=0.0)


def scale(factor: float, *atoms: int) -> AtomEdit:
    """Makes atoms stronger or weaker where they fire: f′ = factor · f. Without numbers, all of them.

    Args:
        factor: 1 changes nothing.
        atoms: numbers of the atoms.

    Returns:
        The edit, for `splice` and `steer`.
    """
    return AtomEdit(atoms or None, factor=factor)


def add(amount: float, *atoms: int) -> AtomEdit:
    """Makes atoms fire at every chosen token: f′ = f + amount.

    Args:
        amount: in the units of the SAE's activations. `atoms_of` and the report's atom browser show how large the
            activations of an atom are where it fires by itself.
        atoms: numbers of the atoms.

    Returns:
        The edit, for `splice` and `steer`.

    Raises:
        ValueError: no atom is named.
    """
    if not atoms:
        raise ValueError(f"add({amount}) names no atom: give the number of at least one, as in add({amount}, 17).")
    return AtomEdit(atoms, added=amount)
