"""Finds the language model that a run was trained on, from what its folder says."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.smollm2 import smollm2
from atomlab.identity import Identity, check_same

# What `_target_` of a run's model may be. A folder may come from elsewhere, so nothing else that it names is run.
_BUILDERS = {
    "atomlab.activations.LanguageModel": LanguageModel,
    "atomlab.activations.model.language_model.LanguageModel": LanguageModel,
    "atomlab.activations.model.smollm2.smollm2": smollm2,
}


def model_of_run(folder: Path, identity: Identity | None, name: str | None = None) -> LanguageModel:
    """Finds the model of a run: by the configuration in its folder, or else by the name and commit in its SAE's record.

    An SAE that has no record, as those of others, may name its model.

    Args:
        folder: the run's folder; it need not hold a configuration.
        identity: the record of the run in its SAE; None without one.
        name: of the model on the hub, as an SAE without a record states it; None if it does not.

    Returns:
        The model; its weights are not loaded.

    Raises:
        ValueError: neither names a model that can be found here, or the model is another one than that of the record.
    """
    file = folder / ".hydra" / "config.yaml"
    stated = (identity or {}).get("model", {})
    if file.exists():
        model = _configured(file)
    elif "hub" in stated:
        model = LanguageModel(stated["hub"], revision=stated["commit"], dtype=stated["dtype"].removeprefix("torch."))
    elif identity is None and name is not None:
        model = LanguageModel(name)
    else:
        raise ValueError(
            f"{folder} does not say which language model it belongs to: give it as model=atomlab.LanguageModel(...)."
        )
    check_model(model, identity, folder)
    return model


def check_model(model: LanguageModel, identity: Identity | None, folder: Path) -> None:
    """Refuses a model that is another one than that of a run's record.

    Args:
        model: the language model; its number format may be another than in the record.
        identity: the record; None passes.
        folder: names the run in the message.

    Raises:
        ValueError: the models differ.
    """
    if identity is None:
        return
    remedy = "give the model that it was trained on as model=atomlab.LanguageModel(...)"
    check_same(
        {"model": model.fingerprint}, identity, what=f"The SAE in {folder}", remedy=remedy, only=("model",),
        may_differ=("model.dtype",),
    )  # fmt: skip


def _configured(file: Path) -> LanguageModel:
    """The model that a configuration names. A relative path is read from where the run was started, too."""
    try:
        config = OmegaConf.load(file)
        found: Any = OmegaConf.to_container(config.model, resolve=True) if isinstance(config, DictConfig) else None
    except (OmegaConfBaseException, AttributeError, ValueError, OSError) as error:
        raise ValueError(
            f"{file} is no readable configuration of a run: give model=atomlab.LanguageModel(...)."
        ) from error
    target = found.pop("_target_", None) if isinstance(found, dict) else None
    if target not in _BUILDERS:
        raise ValueError(
            f"{file} names the model {target}, which is none of atomlab: give model=atomlab.LanguageModel(...)."
        )
    if "name" in found and not Path(found["name"]).exists():
        there = _started_in(file.parent / "hydra.yaml") / found["name"]
        found["name"] = str(there) if there.is_dir() else found["name"]
    return _BUILDERS[target](**found)


def _started_in(file: Path) -> Path:
    """The folder in which a run was started; the present one where that is not known."""
    if not file.exists():
        return Path()
    return Path(str(OmegaConf.select(OmegaConf.load(file), "hydra.runtime.cwd", default=".")))
