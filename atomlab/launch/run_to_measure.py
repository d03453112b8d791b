"""What evaluate.py takes from the run folder that it measures, and what may be chosen beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from atomlab.launch.options import top_key

_BESIDE_RUN = ("run", "study", "sample_sizes", "trainer", "cache_dir")


def config_of_run(config: DictConfig) -> DictConfig:
    """Reads the configuration that a run was trained with.

    Args:
        config: of evaluate.py, whose `run` is the run's folder, or None.

    Returns:
        The configuration of the run, with the `cache_dir` of `config` if the command line gives it. Without `run`,
        `config` itself.

    Raises:
        FileNotFoundError: `run` is no folder of train.py.
        ValueError: the command line sets what the run fixes.
    """
    if config.run is None:
        return config
    file = Path(config.run) / ".hydra" / "config.yaml"
    if not file.exists():
        raise FileNotFoundError(f"run={config.run} is no run folder of train.py: it has no .hydra/config.yaml.")
    overridden = overridden_keys()
    if fixed := sorted(overridden - set(_BESIDE_RUN)):
        raise ValueError(
            f"run={config.run} fixes {', '.join(fixed)}: leave it out, or leave out run to measure something else."
        )
    found = OmegaConf.load(file)
    assert isinstance(found, DictConfig)
    if "cache_dir" in overridden:
        found.cache_dir = config.cache_dir
    return found


def trainer_config(trained: DictConfig, config: DictConfig) -> DictConfig:
    """Chooses the configuration of the trainer: that of the run, or the one that the command line chooses beside it.

    Args:
        trained: configuration of the run.
        config: of evaluate.py.

    Returns:
        The configuration, with the steps of the run; on the CPU if it asks for a GPU and this machine has none.
    """
    import torch  # seconds, in which a misspelt option has been answered

    chosen = config.trainer if "trainer" in overridden_keys() else trained.trainer
    absent = chosen.accelerator in ("gpu", "cuda") and not torch.cuda.is_available()
    own = {"accelerator": "cpu" if absent else chosen.accelerator, "max_steps": trained.steps}
    merged = OmegaConf.merge(chosen, own)
    assert isinstance(merged, DictConfig)
    return merged


def setting_of(trained: DictConfig, sample_sizes: DictConfig, identity: Mapping[str, Any]) -> str:
    """Writes down what every number of a study depends on beside the options of the study itself.

    Args:
        trained: configuration of the run.
        sample_sizes: configuration of the sample sizes of the study.
        identity: the record of the run (`atomlab.identity`).

    Returns:
        YAML of `trained` without its `study` and `sample_sizes`, YAML of `sample_sizes`, and the record as JSON.
    """
    own = OmegaConf.masked_copy(trained, [str(key) for key in trained if key not in ("study", "sample_sizes")])
    return f"{as_yaml(own, sample_sizes)}\n{json.dumps(identity)}"


def as_yaml(*parts: DictConfig) -> str:
    """Returns parts of a configuration as YAML, one below the other, as a report shows them."""
    return "\n".join(OmegaConf.to_yaml(part) for part in parts)


def overridden_keys() -> set[str]:
    """Returns the first parts of the keys that the command line sets."""
    return {override.lstrip("+~").split("=")[0].split(".")[0] for override in HydraConfig.get().overrides.task}


def check_only_read(*read: str) -> None:
    """Checks that the command line sets nothing that would have no effect.

    Args:
        read: first parts of the keys that are read.

    Raises:
        ValueError: another key is set.
    """
    unread = [word for word in HydraConfig.get().overrides.task if top_key(word) not in read]
    if unread:
        raise ValueError(
            f"{unread[0]} has no effect on a study that reads no activations: leave it out. What it trains takes choices of "
            "a recipe from study.changes={training.noise: 0.0}."
        )
