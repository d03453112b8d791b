"""The tiny model of `tests.tiny` as `device_map` spreads it, and a harvest from it."""

from pathlib import Path
from typing import Any

from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.tokens.tokenise import TokenRules

_MODULES = ("embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "rotary_emb")


def on_disk(*layers: int) -> dict[str, str]:
    """A mapping that puts these layers on the disk and everything else on the CPU."""
    mapping = dict.fromkeys((*(f"model.{name}" for name in _MODULES), "lm_head"), "cpu")
    return mapping | {f"model.layers.{layer}": "disk" for layer in layers}


def whole(tiny: Path) -> LanguageModel:
    """The model on one device."""
    return LanguageModel(str(tiny / "model"), dtype="float32", device="cpu")


def spread(tiny: Path, folder: Path, device_map: Any) -> LanguageModel:
    """The model as a mapping or "auto" spreads it; `folder` is its place on the disk."""
    return LanguageModel(
        str(tiny / "model"), dtype="float32", device="cpu", device_map=device_map, offload_folder=str(folder)
    )


def harvested(tiny: Path, model: LanguageModel, cache: Path, layer: int) -> ActivationDataModule:
    """Some activations of the residual stream behind a layer, set up."""
    corpus = LocalText(str(tiny / "text.txt"))
    data = ActivationDataModule(
        model,
        corpus,
        corpus,
        hook_points=HookPoints(site="resid_post", layer=layer),
        tokens=TokenRules(context=16, max_tokens=2000),
        harvest=HarvestOptions(cache_dir=str(cache), batch_tokens=256),
    )
    data.prepare_data()
    data.setup()
    return data
