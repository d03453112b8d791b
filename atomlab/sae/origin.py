"""Where an SAE comes from, as its files say: what a reader carries over and a writer passes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True)
class Origin:
    """What the files of an SAE say of it, beside its weights.

    Attributes:
        format: the format of the files, such as `SAELens` or `Gemma Scope`.
        architecture: what the SAE is in the words of its format, such as `jumprelu` or `BatchTopKSAE, k=64`.
        model: name of the language model, on the hub where the files have that; None if they do not say.
        site: where the activations are read, in the notation of the files or as `<module path>.input|output`; None if they
            do not say.
        normalisation: what was done to the activations that the SAE was trained on, and how the weights account for it;
            `none` for raw activations.
        details: further entries of the files that SAELens, SAEBench and Neuronpedia look up, by SAELens's names
            (`context_size`, `prepend_bos`, `dataset_path`, ...).
    """

    format: str
    architecture: str
    model: str | None = None
    site: str | None = None
    normalisation: str = "none"
    details: Mapping[str, object] = field(default_factory=dict)
