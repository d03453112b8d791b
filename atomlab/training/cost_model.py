"""What one training step costs each process, as formulas of its sizes: products, memory traffic, memory and exchange."""

from dataclasses import dataclass
from typing import final

_TOUCHED = 3  # entries of a sparse step for each active latent: those within ε/2 of the threshold have a gradient too
_FLOPS_AN_ENTRY = 10  # times d_in: decoding, and the gradients of encoder, decoder and code
_ROWS_AN_ENTRY = 4  # rows of d_in numbers that are read or written for an entry
_PASSES = (
    13  # over the weights in a step: Adam reads 4 and writes 3, the gradient is written and read, norms and projection
)


@final
@dataclass(frozen=True)
class StepSizes:
    """The sizes of a training step, in float32.

    Attributes:
        d_in: width of the activations.
        d_sae: number of latents, over all processes.
        batch: vectors of a step, over all processes.
        l0: mean number of active latents of a vector.
        matrices: matrices of weights: 1 where the encoder is tied to the decoder, otherwise 2.
        latents: processes that share the dictionary, N.
        replicas: groups of N processes that each see their share of a batch, D.
    """

    d_in: int
    d_sae: int
    batch: int
    l0: float
    matrices: int = 1
    latents: int = 1
    replicas: int = 1

    @property
    def weights(self) -> int:
        """Weights of the process with the most latents, ⌈d_sae / N⌉ · (matrices · d_in + 2) + d_in."""
        return -(-self.d_sae // self.latents) * (self.matrices * self.d_in + 2) + self.d_in


@final
@dataclass(frozen=True)
class StepCost:
    """What a step costs one process.

    Attributes:
        product_flops: of the encoder's product, 2 · (batch / D) · d_in · (d_sae / N).
        entry_flops: of everything else, about 30 · d_in for each active latent of a vector.
        traffic_bytes: memory that is read and written: 13 passes over the own weights, and 12 rows of d_in numbers for each
            active latent of a vector.
        state_bytes: of weights, gradients and Adam's two means, 16 for each weight.
        latents_bytes: handed to the exchange among the N processes: (batch / D) · d_in numbers, and a few scalars.
        replicas_bytes: handed to the exchange among the D replicas: the gradients of the own weights; 0 for D = 1.
    """

    product_flops: float
    entry_flops: float
    traffic_bytes: float
    state_bytes: float
    latents_bytes: float
    replicas_bytes: float


@final
@dataclass(frozen=True)
class Machine:
    """What a device is assumed to reach, in FLOP/s and bytes/s; whoever states a time states these.

    Attributes:
        flops: of large matrix products.
        memory: of its memory.
        network: of an exchange, sent and received at once.
    """

    flops: float
    memory: float
    network: float


ASSUMED = Machine(0.5 * 989e12, 0.5 * 3.35e12, 300e9)  # half of an H100's bfloat16 products and memory; NVLink


def step_cost(sizes: StepSizes) -> StepCost:
    """Computes what one step costs one process.

    Args:
        sizes: of the step.

    Returns:
        The cost. Operations of products and bytes of exchange are exact up to scalars; operations on entries and traffic are
        estimates, from the number of entries and of passes over the weights.
    """
    rows, own = sizes.batch / sizes.replicas, sizes.d_sae / sizes.latents
    entries = _TOUCHED * rows * sizes.l0 / sizes.latents
    return StepCost(
        product_flops=2 * rows * sizes.d_in * own,
        entry_flops=_FLOPS_AN_ENTRY * sizes.d_in * entries,
        traffic_bytes=4 * (_PASSES * sizes.weights + _ROWS_AN_ENTRY * sizes.d_in * entries),
        state_bytes=16 * sizes.weights,
        latents_bytes=4 * rows * sizes.d_in if sizes.latents > 1 else 0,
        replicas_bytes=4 * sizes.weights if sizes.replicas > 1 else 0,
    )


def step_seconds(sizes: StepSizes, machine: Machine) -> dict[str, float]:
    """Computes how long the parts of a step take on a machine of assumed speed, one after another.

    An all-reduce of b bytes among P processes sends and receives 2 (P − 1) / P · b in each (ring).

    Args:
        sizes: of the step.
        machine: what one device reaches.

    Returns:
        Seconds by part: `product`, `memory`, `latents`, `replicas`. An estimate; their sum is an upper one where parts overlap.
    """
    cost = step_cost(sizes)
    return {
        "product": (cost.product_flops + cost.entry_flops) / machine.flops,
        "memory": cost.traffic_bytes / machine.memory,
        "latents": 2 * (1 - 1 / sizes.latents) * cost.latents_bytes / machine.network,
        "replicas": 2 * (1 - 1 / sizes.replicas) * cost.replicas_bytes / machine.network,
    }
