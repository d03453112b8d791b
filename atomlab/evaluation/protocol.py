"""How much a table is measured on."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Protocol:
    """Sample sizes; every one is printed beside what it was used for.

    Args:
        samples: training vectors and held-out vectors, each; all if there are fewer. Everything but the following.
        certified_samples: held-out vectors for levels 3 and 4, identifiability and the isometry of the codes.
        solved_samples: held-out vectors for level 5, which is solved one by one.
        isometry_samples: random supports tried for the lower bound of δ_K.
        control_samples: training vectors that k-means, data-as-dictionary and the Gaussian surrogate have, at most.
        loss_tokens: held-out tokens whose activations are replaced in the language model (loss recovered, KL).
        browsed_samples: held-out vectors in which the atom browser looks for contexts.
        contexts: an atom shows, at most.
        batch: vectors encoded at a time.
        seed: of the controls, the browsed sequences and the random supports. Measured vectors are drawn by the data's own.
    """

    samples: int = 4096
    certified_samples: int = 1000
    solved_samples: int = 1000
    isometry_samples: int = 256
    control_samples: int = 200_000
    loss_tokens: int = 10_000
    browsed_samples: int = 16_384
    contexts: int = 8
    batch: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 2 if name == "samples" else 1  # one vector has no variance to explain
            if name != "seed" and value < least:
                raise ValueError(f"metrics.{name}={value} measures nothing: use {least} or more.")
