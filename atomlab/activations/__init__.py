"""Turns text into batches of activations: text -> tokens -> harvest -> store -> batches, one room for each stage.

corpora/ reads text, or token ids, record by record. tokens/ turns it into token sequences of train, validation and test,
which share no group. model/ runs the language model and reads its activations at hook points. harvest/ runs the model
over the sequences and writes what the cache lacks. store/ keeps the activations on disk and reads them back. batches/
hands them to the training, in a random order from the cache or straight from the model. datamodule.py joins these for
Lightning. What a notebook needs is named here; the corpora are in atomlab.activations.corpora.
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
