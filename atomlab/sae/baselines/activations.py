"""What makes a code of pre-activations in the four architectures that a TSAE is compared with.

All see z = u + b with the encoder's bias b, where u is the product of the input with W_enc. Every activation has the
same methods:

- `forward(z, bias)` is the code of a finished SAE, and `of_batch(z, bias)` the code of a training batch;
- `scores(z, bias)` are what all latents' firing is decided by, if one level is to hold for all of them, and
  `settle_(level, bias)` moves the activation, or the encoder's bias, in place so that a latent fires where its score
  exceeded the level;
- `moved(shift)` and `scaled(norms)` are the activation of z − shift and of norms·z;
- `one_step(W_enc, bias)` gives encoder, bias and thresholds of the TSAE with the same codes.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class Relu(nn.Module):
    """The ReLU, f = max(0, z), of an SAE that an ℓ1 term keeps sparse (Bricken et al. 2023)."""

    compares_latents = False  # so the norm of each latent may be changed on its own

    def forward(self, z: Float[Tensor, "*batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes f = max(0, z), in the shape of z."""
        return z.relu()

    of_batch = forward

    def scores(self, z: Tensor, bias: Tensor) -> Tensor:
        """Returns z: a latent fires where it is above 0."""
        return z

    def settle_(self, level: float, bias: Tensor) -> None:
        """Lowers the bias of the encoder by the level, so that codes get smaller by as much."""
        bias.sub_(level)

    def moved(self, shift: Tensor) -> "Relu":
        """Returns a ReLU, whatever z is shifted by."""
        return Relu()

    def scaled(self, norms: Tensor) -> "Relu":
        """Returns a ReLU, whatever z is multiplied by."""
        return Relu()

    def one_step(self, W_enc: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns encoder, bias and thresholds of the TSAE with the same codes: thresholds of 0."""
        return W_enc, bias, torch.zeros_like(bias)


@final
class TopK(nn.Module):
    """The k largest pre-activations of each vector where they are above 0, f = TopK(max(0, z)) (Gao et al. 2024).

    Args:
        k: number of latents of a vector, 1 or more; all of them where there are fewer.

    Attributes:
        k: an int64 scalar, a buffer.

    Raises:
        ValueError: k is below 1.
    """

    compares_latents = True
    k: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        _check(k)
        self.register_buffer("k", torch.tensor(k))

    def forward(self, z: Float[Tensor, "*batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes the code, in the shape of z: at most k values of each vector, all above 0.

        Of equal values at the k-th place torch decides.
        """
        return kept_of_largest(z, int(self.k))

    of_batch = forward

    def scores(self, z: Tensor, bias: Tensor) -> None:
        """Returns None: each vector has k latents, and no level changes that."""

    def settle_(self, level: float, bias: Tensor) -> None:
        """Does nothing: see `scores`."""

    def moved(self, shift: Tensor) -> "TopK":
        """Returns the same activation, whatever z is shifted by."""
        return TopK(int(self.k))

    def scaled(self, norms: Tensor) -> "TopK":
        """Returns the same activation. Its codes change with z alone only if all norms are equal."""
        return TopK(int(self.k))

    def one_step(self, W_enc: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns encoder, bias and thresholds of 0. No TSAE has these codes: that one's contain them."""
        return W_enc, bias, torch.zeros_like(bias)


@final
class BatchTopK(nn.Module):
    """The batch·k largest pre-activations of a whole batch; one threshold for all latents later (Bussmann et al. 2024).

    In training f keeps the batch·k largest values of max(0, z), so vectors may have more or fewer than k. Meanwhile the
    threshold θ follows the smallest value that is kept. A finished SAE has f = z·1[z > θ], which needs no batch.

    Args:
        k: mean number of latents of a vector in a training batch, 1 or more.
        threshold: θ, 0 or above.

    Attributes:
        k: an int64 scalar, a buffer.
        threshold: θ, a scalar, a buffer.

    Raises:
        ValueError: k is below 1, or θ below 0.
    """

    compares_latents = True
    k: Tensor
    threshold: Tensor

    def __init__(self, k: int, threshold: float = 0.0) -> None:
        super().__init__()
        _check(k)
        if not threshold >= 0:
            raise ValueError(f"A BatchTopK activation has a threshold of 0 or more, got {threshold}.")
        self.register_buffer("k", torch.tensor(k))
        self.register_buffer("threshold", torch.tensor(float(threshold)))

    def forward(self, z: Float[Tensor, "*batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes f = z·1[z > θ], in the shape of z."""
        return z * (z > self.threshold)

    def of_batch(self, z: Float[Tensor, "batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "batch d_sae"]:
        """Computes the code of a training batch, and moves θ by a tenth of the way to the smallest value that is kept.

        The first batch sets θ. Of equal values at the last place torch decides.
        """
        codes = kept_of_largest(z.flatten(), int(self.k) * len(z)).view_as(z)
        with torch.no_grad():
            kept = codes[codes > 0]
            if len(kept):
                least = kept.min().to(self.threshold)
                self.threshold.copy_(torch.where(self.threshold > 0, self.threshold.lerp(least, 0.1), least))
        return codes

    def scores(self, z: Tensor, bias: Tensor) -> Tensor:
        """Returns z where it is above 0, and −∞ elsewhere, where no level lets the latent fire."""
        return torch.where(z > 0, z, -torch.inf)

    def settle_(self, level: float, bias: Tensor) -> None:
        """Makes the level the threshold."""
        self.threshold.fill_(max(0.0, level))

    def moved(self, shift: Tensor) -> "BatchTopK":
        """Returns the same activation, whatever z is shifted by."""
        return BatchTopK(int(self.k), float(self.threshold))

    def scaled(self, norms: Tensor) -> "BatchTopK":
        """Returns the activation of norms·z, for norms that are all equal."""
        return BatchTopK(int(self.k), float(self.threshold * norms.mean()))

    def one_step(self, W_enc: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns encoder, bias and thresholds of the TSAE with the same codes: θ for every latent."""
        return W_enc, bias, self.threshold.to(bias).expand_as(bias).clone()


@final
class Gated(nn.Module):
    """A gate that decides whether a latent fires, and a magnitude of its own (Rajamanoharan et al. 2024).

    With the shared product u = z − b of the input and W_enc, f = 1[z > 0]·max(0, e^r u + b_mag). The encoder's bias b is
    the gate's, b_gate. No gradient of f reaches b_gate; the losses of the gate have one (`baseline_objective`).

    Args:
        d_sae: number of latents.

    Attributes:
        r_mag: r, shape `(d_sae,)`; starts at 0.
        b_mag: shape `(d_sae,)`; starts at 0.
    """

    compares_latents = False

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.r_mag, self.b_mag = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(torch.zeros(d_sae))

    def forward(self, z: Float[Tensor, "*batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes f = 1[z > 0]·max(0, e^r (z − b_gate) + b_mag), in the shape of z."""
        return self.magnitude(z, bias) * (z > 0)

    of_batch = forward

    def magnitude(self, z: Float[Tensor, "*batch d_sae"], bias: Float[Tensor, " d_sae"]) -> Tensor:
        """Computes max(0, e^r (z − b_gate) + b_mag), in the shape of z."""
        return (self.r_mag.exp() * (z - bias) + self.b_mag).relu()

    def scores(self, z: Tensor, bias: Tensor) -> Tensor:
        """Returns the gate's z where the magnitude is above 0, and −∞ elsewhere, where no level lets the latent fire."""
        return torch.where(self.magnitude(z, bias) > 0, z, -torch.inf)

    def settle_(self, level: float, bias: Tensor) -> None:
        """Lowers the gate's bias by the level; magnitudes stay."""
        bias.sub_(level)

    @torch.no_grad()
    def moved(self, shift: Tensor) -> "Gated":
        """Returns the activation of z − shift where the encoder's bias falls by the shift: b_mag falls by e^r·shift."""
        return self._with(self.r_mag, self.b_mag - self.r_mag.exp() * shift)

    @torch.no_grad()
    def scaled(self, norms: Tensor) -> "Gated":
        """Returns the activation of norms·z with codes norms·f."""
        return self._with(self.r_mag, self.b_mag * norms)

    def _with(self, r_mag: Tensor, b_mag: Tensor) -> "Gated":
        other = Gated(len(r_mag)).to(r_mag)
        other.load_state_dict({"r_mag": r_mag, "b_mag": b_mag})
        return other

    def one_step(self, W_enc: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns encoder, bias and thresholds of the TSAE with the same codes up to rounding.

        W_enc·e^r and b_mag give the magnitudes, and z > 0 means a magnitude above b_mag − e^r b_gate, so θ is that or 0.
        """
        scale = self.r_mag.exp()
        return W_enc * scale, self.b_mag, (self.b_mag - scale * bias).clamp(min=0)


Activation = Relu | TopK | BatchTopK | Gated


def kept_of_largest(z: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Keeps of the last dimension the k largest values where they are above 0; all else becomes 0.

    Args:
        z: shape `(..., d_sae)`.
        k: number of values, all where there are fewer.

    Returns:
        The kept values, in the shape of z, with their gradients.
    """
    top = z.relu().topk(min(k, z.shape[-1]), dim=-1, sorted=False)
    return torch.zeros_like(z).scatter(-1, top.indices, top.values)


def _check(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k={k} should be a number of latents, 1 or more.")
