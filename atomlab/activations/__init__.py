"""From text to batches of a language model's activations.

A corpus gives examples of text (`corpora`). They become token sequences of train, validation and test (`tokens`). One
pass of the language model (`model`) over the sequences harvests its activations at some hook points (`harvest`). They
are kept on disk with where each comes from (`store`), and are trained on in a random order (`batches`).
`ActivationDataModule` joins these for Lightning. What a notebook needs is named here; corpora are in
`atomlab.activations.corpora`.
"""

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.tokens.tokenise import TokenRules

__all__ = [
    "ActivationDataModule",
    "HarvestOptions",
    "HookPoints",
    "LanguageModel",
    "Outliers",
    "TokenRules",
    "TrainingBatches",
]
