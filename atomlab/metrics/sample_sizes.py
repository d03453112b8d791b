"""How many vectors, supports and tokens the numbers of a table and of a dashboard are measured on."""

from dataclasses import dataclass
from typing import Annotated, final

from annotated_types import Ge

from atomlab.ranges import Count, Seed, check_ranges


@final
@dataclass(frozen=True)
class SampleSizes:
    """Sample sizes of a table; the report prints each one beside the numbers that it was used for.

    A validation in training measures the first `measured` validation vectors, and certifies the first `dashboard`.

    Attributes:
        measured: training vectors, and as many held-out vectors, for every number that no other size governs. All
            vectors of a split are used where it has fewer.
        fired: training vectors on which the atoms of one-step codes are counted that never fire.
        certified: held-out vectors for levels 3 and 4, identifiability and the isometry of the codes.
        solved: held-out vectors for level 5, for which one linear programme is solved for each vector.
        supports: random supports that are tried for the lower bound of δ_K.
        controls: training vectors that k-means, the data dictionary and the Gaussian surrogate get, at most.
        loss_tokens: held-out tokens whose activations are replaced in the language model (loss recovered, KL).
        browsed: held-out vectors in which the atom browser looks for contexts.
        contexts: strongest contexts that the atom browser shows of an atom, at most; it adds up to twelve of other kinds.
        batch: vectors that are encoded at a time.
        resampled: samples of the held-out documents, drawn with replacement, that intervals are made of.
        seed: of the controls, the browsed sequences, the random supports and the resampled documents. The measured vectors
            are drawn by the seed of the data.
        dashboard: validation vectors for the numbers of `certified` in each validation of a training, which may run often.

    Raises:
        ValueError: a size is below 1, or `measured` below 2.
    """

    measured: Annotated[int, Ge(2)] = 4096  # one vector has no variance to explain
    fired: Count = 131_072
    certified: Count = 1000
    solved: Count = 1000
    supports: Count = 256
    controls: Count = 200_000
    loss_tokens: Count = 10_000
    browsed: Count = 16_384
    contexts: Count = 8
    batch: Count = 2048
    resampled: Count = 2000
    seed: Seed = 0
    dashboard: Count = 256

    def __post_init__(self) -> None:
        check_ranges("sample_sizes", self)
