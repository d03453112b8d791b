"""What is compared: a dictionary, and the code of an activation on it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, orthogonal_matching_pursuit, random_dictionary


@dataclass(frozen=True)
class Unit:
    """A named set of units.

    Attributes:
        name: as in the table.
        dictionary: (d_sae, d_in) atoms as rows.
        bias: (d_in,) added to every reconstruction.
        encode: activations (samples, d_in) to codes (samples, d_sae).
        signed: codes may be negative.
    """

    name: str
    dictionary: Tensor
    bias: Tensor
    encode: Callable[[Tensor], Tensor]
    signed: bool

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.dictionary + self.bias


def atoms(sae: ThresholdSAE) -> Unit:
    """The decoder rows of a TSAE of raw activations, with its one-step encoder."""
    return Unit("atoms", sae.W_dec.detach(), sae.b_dec.detach(), lambda x: sae.encode(x).detach(), signed=False)


def neurons(d_in: int) -> Unit:
    """The identity basis of the site: the code is the activation itself, so R² = 1 at L0 = d_in by construction."""
    return Unit("neurons", torch.eye(d_in), torch.zeros(d_in), lambda x: x, signed=True)


def random_atoms(d_sae: int, mean: Tensor, k: int, metric: AtomicInnerProduct, generator: torch.Generator) -> Unit:
    """Control: independent random atoms, uniform on the S-unit sphere, with OMP codes of K atoms after the mean is taken off."""
    dictionary = random_dictionary(d_sae, len(mean), generator) @ metric.unwhitening.float()

    def encode(x: Tensor) -> Tensor:
        return orthogonal_matching_pursuit(x - mean, dictionary, k, metric)

    return Unit("random + OMP", dictionary, mean, encode, signed=True)
