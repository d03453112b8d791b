"""What is compared: a dictionary, and the code of an activation on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import decode_csr, encode_csr


@dataclass(frozen=True)
class Unit:
    """A named set of units.

    Attributes:
        name: as in the table.
        dictionary: (d_sae, d_in) atoms as rows.
        bias: (d_in,) added to every reconstruction.
        encode: activations (samples, d_in) to codes (samples, d_sae), CSR or dense.
        signed: codes may be negative.
    """

    name: str
    dictionary: Float[Tensor, "d_sae d_in"]
    bias: Float[Tensor, " d_in"]
    encode: Callable[[Tensor], Tensor]
    signed: bool

    @property
    def d_sae(self) -> int:
        return len(self.dictionary)

    @no_autocast()
    def decode(self, codes: Tensor) -> Float[Tensor, "samples d_in"]:
        """x̂ = code · dictionary + bias, of codes (samples, d_sae), CSR or dense."""
        if codes.layout == torch.sparse_csr:
            return decode_csr(codes, self.dictionary, self.bias)
        return codes @ self.dictionary + self.bias

    @no_autocast()
    def reconstruct(self, x: Float[Tensor, "samples d_in"]) -> Float[Tensor, "samples d_in"]:
        return self.decode(self.encode(x))


def atoms(sae: ThresholdSAE, name: str = "atoms") -> Unit:
    """The decoder rows of a TSAE of raw activations, with its one-step encoder; codes are CSR."""
    return Unit(name, sae.W_dec.detach(), sae.b_dec.detach(), partial(encode_csr, sae), signed=False)


def neurons(d_in: int) -> Unit:
    """The identity basis of the site: the code is the activation itself, so R² = 1 at L0 = d_in by construction."""
    return Unit("neurons", torch.eye(d_in), torch.zeros(d_in), lambda x: x, signed=True)
