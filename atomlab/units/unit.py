"""The unit of comparison: a dictionary, and the code of an activation on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.sae import SAE
from atomlab.sae.ops import decode_csr, encode_csr


@dataclass(frozen=True)
class Unit:
    """A named dictionary with an encoder: x ≈ code · dictionary + bias.

    Attributes:
        name: name of the row in tables and figures: the dictionary's, and `<dictionary> + <coder>` where a coder was chosen.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        bias: what is added to every reconstruction, shape `(d_in,)`.
        encode: function from raw activations `(samples, d_in)` to codes `(samples, d_sae)`, CSR or dense.
        signed: whether codes may be negative.
        coder: how codes are found, in a word or two: units with the same coder are compared like with like.
    """

    name: str
    dictionary: Float[Tensor, "d_sae d_in"]
    bias: Float[Tensor, " d_in"]
    encode: Callable[[Tensor], Tensor]
    signed: bool
    coder: str

    @property
    def source(self) -> str:
        """The name of the dictionary, which units with other coders share."""
        return source_of(self.name)

    @property
    def d_sae(self) -> int:
        """Number of atoms."""
        return len(self.dictionary)

    @no_autocast()
    def decode(self, codes: Tensor) -> Float[Tensor, "samples d_in"]:
        """Reconstructs activations from codes: x̂ = code · dictionary + bias.

        Args:
            codes: shape `(samples, d_sae)`, CSR or dense.

        Returns:
            x̂, shape `(samples, d_in)`, in the dtype of the dictionary.

        Cost: 2·samples·d_in·d_sae FLOPs for dense codes, 2·d_in FLOPs an entry for CSR codes.
        """
        if codes.layout == torch.sparse_csr:
            return decode_csr(codes, self.dictionary, self.bias)
        return codes.to(self.dictionary.dtype) @ self.dictionary + self.bias

    @no_autocast()
    def reconstruct(self, x: Float[Tensor, "samples d_in"]) -> Float[Tensor, "samples d_in"]:
        """Encodes raw activations and decodes their codes: x̂ of x, both of shape `(samples, d_in)`."""
        return self.decode(self.encode(x))


def source_of(name: str) -> str:
    """Returns the dictionary's part of the name of a unit, `<dictionary>` or `<dictionary> + <coder>`."""
    return name.split(" + ")[0]


def atoms(sae: SAE, name: str = "atoms") -> Unit:
    """Makes a unit of a TSAE: its decoder rows with its own encoder.

    Args:
        sae: a TSAE of raw activations.
        name: name of the row in tables and figures.

    Returns:
        A unit that shares the weights of `sae`; its codes are CSR and never negative.
    """
    return Unit(name, sae.W_dec.detach(), sae.b_dec.detach(), partial(encode_csr, sae), signed=False, coder="one-step")


def neurons(d_in: int) -> Unit:
    """Makes a unit of the site's own coordinates: the code of an activation is the activation itself.

    By construction R² = 1, at L0 = d_in wherever no coordinate is exactly 0.

    Args:
        d_in: width of the activations.

    Returns:
        A unit with the identity matrix as its dictionary and dense, signed codes.
    """
    return Unit("neurons", torch.eye(d_in), torch.zeros(d_in), lambda x: x, signed=True, coder="identity")
