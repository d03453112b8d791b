"""A data module from options by their own names, whichever of its parts they belong to."""

from dataclasses import fields
from typing import Any

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.tokens.tokenise import TokenRules

_PARTS = {
    "hook_points": HookPoints,
    "tokens": TokenRules,
    "harvest": HarvestOptions,
    "outliers": Outliers,
    "batches": TrainingBatches,
}


def data_module(model: LanguageModel, corpus: Corpus, **options: Any) -> ActivationDataModule:
    """Of `corpus`, which is its own reference. Every option is a field of one part; `seed` is that of the tokens."""
    parts: dict[str, Any] = {}
    for name, part in _PARTS.items():
        mine = {field.name for field in fields(part)} & set(options)
        parts[name] = part(**{key: options.pop(key) for key in mine})
    assert not options, f"no part of the data module has {', '.join(options)}"
    return ActivationDataModule(model, corpus, corpus, **parts)
