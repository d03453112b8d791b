"""Vectors whose true atoms and codes are known: planted dictionaries of known coherence, and codes with known structure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, final

import torch
from jaxtyping import Float
from scipy.linalg import hadamard
from torch import Tensor

from atomlab.theory import random_dictionary

Structure = Literal["independent", "correlated", "hierarchical"]
_SHARED = 0.6  # of the variance of a latent's Gaussian that its group shares, for `correlated`
_GROUP = 4  # features of a group, and of a family of a parent and its children
_VALUES = (0.5, 1.5)  # codes are uniform between these


class Law(Protocol):
    """What a law of planted vectors has: x = codes · dictionary + offset, with known atoms and codes."""

    @property
    def name(self) -> str:
        """Name for tables."""
        ...

    @property
    def dictionary(self) -> Float[Tensor, "features d_in"]:
        """The true atoms as rows, of unit norm."""
        ...

    @property
    def offset(self) -> Float[Tensor, " d_in"]:
        """What is added to every vector."""
        ...

    @property
    def l0(self) -> float:
        """Mean number of atoms of a vector."""
        ...

    @property
    def identity(self) -> str:
        """What else the vectors depend on, beside the options of the study and its seed."""
        ...

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count d_in"], Float[Tensor, "count features"]]:
        """Draws vectors and their true codes."""
        ...


@final
@dataclass(frozen=True)
class Planted:
    """A planted dictionary and the law of its codes, without an offset.

    Attributes:
        name: of the law, for tables.
        dictionary: unit atoms as rows, shape `(features, d_in)`.
        l0: mean number of atoms of a vector.
        structure: how firings hang together. `independent`: not at all. `correlated`: in groups of four, by Gaussians with
            correlation .6 whose largest values fire. `hierarchical`: in families of four, a child only where its parent does.
    """

    name: str
    dictionary: Float[Tensor, "features d_in"]
    l0: float
    structure: Structure = "independent"

    @property
    def offset(self) -> Float[Tensor, " d_in"]:
        """Zeros: vectors are sums of atoms alone."""
        return torch.zeros(self.dictionary.shape[1])

    @property
    def identity(self) -> str:
        """Nothing: the options of the study and its seed make the law."""
        return ""

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count d_in"], Float[Tensor, "count features"]]:
        """Draws vectors, float32, and their true codes, of which at least one value is above 0.

        Args:
            count: number of vectors.
            generator: random numbers, on the CPU.

        Returns:
            x = codes · dictionary without noise, and the codes, uniform from 0.5 to 1.5 where they fire.
        """
        features = len(self.dictionary)
        fires = _STRUCTURES[self.structure](count, features, self.l0 / features, generator)
        silent = ~fires.any(1)
        fires[silent, torch.randint(features, (int(silent.sum()),), generator=generator)] = True
        low, high = _VALUES
        codes = fires * (low + (high - low) * torch.rand(count, features, generator=generator))
        return codes @ self.dictionary, codes


def unbiased_bases(d_in: int) -> Float[Tensor, "features d_in"]:
    """Makes the identity and a Hadamard basis: 2·d_in unit atoms of mutual coherence 1/√d_in exactly.

    Args:
        d_in: a power of two.

    Returns:
        Atoms as rows, float32.
    """
    return torch.cat([torch.eye(d_in), torch.tensor(hadamard(d_in)).float() / d_in**0.5])


def planted_laws(d_in: int, l0: float, seed: int) -> list[Planted]:
    """Makes the laws of the study: of two unbiased bases, and of random atoms with and without structure.

    Args:
        d_in: a power of two; there are 2·d_in atoms.
        l0: mean number of atoms of a vector.
        seed: of the random atoms.
    """
    random = random_dictionary(2 * d_in, d_in, torch.Generator().manual_seed(seed))
    return [
        Planted("unbiased bases", unbiased_bases(d_in), l0),
        Planted("random atoms", random, l0),
        Planted("random, correlated", random, l0, "correlated"),
        Planted("random, hierarchical", random, l0, "hierarchical"),
    ]


def _independent(count: int, features: int, rate: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, features, generator=generator) < rate


def _correlated(count: int, features: int, rate: float, generator: torch.Generator) -> Tensor:
    shared = torch.randn(count, features // _GROUP, generator=generator).repeat_interleave(_GROUP, 1)
    own = torch.randn(count, features, generator=generator)
    return _SHARED**0.5 * shared + (1 - _SHARED) ** 0.5 * own > torch.special.ndtri(torch.tensor(1 - rate))


def _hierarchical(count: int, features: int, rate: float, generator: torch.Generator) -> Tensor:
    """A parent fires at rate p and each child at p/2, all of it under the parent, so p = 8/5 of the mean rate."""
    families = torch.rand(count, features // _GROUP, generator=generator) < rate * _GROUP / (1 + (_GROUP - 1) / 2)
    fires = families.repeat_interleave(_GROUP, 1)
    child = torch.arange(features) % _GROUP > 0
    return fires & ~(child & (torch.rand(count, features, generator=generator) < 0.5))


_STRUCTURES: dict[Structure, Callable[[int, int, float, torch.Generator], Tensor]] = {
    "independent": _independent,
    "correlated": _correlated,
    "hierarchical": _hierarchical,
}
