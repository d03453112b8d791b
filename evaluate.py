"""Measures units with controls: `python evaluate.py run=outputs/...`, or a study: `experiment=...`; options in conf/."""

import json
import sys
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from atomlab.evaluation import Recipe, Study, StudyInputs
from atomlab.identity import Identity, check_same, identity_of, read_identity, warn_of_other_code
from atomlab.launch import launch, plain
from atomlab.training.options import check_values

_BESIDE_RUN = ("run", "study", "sample_sizes", "trainer", "cache_dir")


def evaluate(config: DictConfig) -> float:
    """Writes results.json, results.csv, figures/ and report.html into this run's folder; returns the study's objective.

    Raises:
        FileNotFoundError: `run` is no finished run of train.py.
        ValueError: beside `run`, an override of what that run fixes; or its model, corpora or options are not what they
            were when it was trained.
    """
    trained = config if config.run is None else _config_of(Path(config.run), config)
    check_values(trained.sae)
    data = instantiate(trained.activations)
    identity = identity_of(plain(trained), data.identity)
    if config.run is not None:
        remedy = "put back what was there when it was trained, or train again"
        found = read_identity(Path(config.run))
        check_same(identity, found, what=f"run={config.run}", remedy=remedy, may_differ=("code",))
        warn_of_other_code(identity, found, f"run={config.run}")
    study: Study = instantiate(config.study, _convert_="all")
    inputs = StudyInputs(
        data=data,
        recipe=Recipe(
            build=instantiate(trained.sae, _partial_=True),
            trainer=instantiate(_trainer(trained, config), _partial_=True),
            batch_size=trained.batch_size,
            steps=trained.steps,
        ),
        sample_sizes=instantiate(config.sample_sizes),
        folder=Path(HydraConfig.get().runtime.output_dir),
        shrinkage=trained.sae.shrinkage,
        seed=trained.seed,
        configuration="\n".join(OmegaConf.to_yaml(part) for part in (trained, config.study, config.sample_sizes)),
        setting=_setting(trained, config, identity),
        identity=identity,
        run=None if config.run is None else Path(config.run),
    )
    text, objective = study(inputs)
    sys.stdout.write(f"{text}\n")
    return objective


def _setting(trained: DictConfig, config: DictConfig, identity: Identity) -> str:
    """What every number depends on beside the study's own options."""
    own = OmegaConf.masked_copy(trained, [str(key) for key in trained if key not in ("study", "sample_sizes")])
    return f"{OmegaConf.to_yaml(own)}\n{OmegaConf.to_yaml(config.sample_sizes)}\n{json.dumps(identity)}"


def _trainer(trained: DictConfig, config: DictConfig) -> DictConfig:
    """That of the run, on the CPU if its accelerator is not here; or what is chosen beside `run`."""
    chosen = config.trainer if "trainer" in _overridden() else trained.trainer
    absent = chosen.accelerator in ("gpu", "cuda") and not torch.cuda.is_available()
    own = {"accelerator": "cpu" if absent else chosen.accelerator}
    own |= {"max_steps": trained.steps}
    merged = OmegaConf.merge(chosen, own)
    assert isinstance(merged, DictConfig)
    return merged


def _overridden() -> set[str]:
    """First parts of the keys that the command line sets."""
    return {override.lstrip("+~").split("=")[0].split(".")[0] for override in HydraConfig.get().overrides.task}


def _config_of(run: Path, config: DictConfig) -> DictConfig:
    """That of the run, but for where the cache lies, if that is given beside `run`."""
    file = run / ".hydra" / "config.yaml"
    if not file.exists():
        raise FileNotFoundError(f"run={run} is no run folder of train.py: it has no .hydra/config.yaml.")
    if fixed := sorted(_overridden() - set(_BESIDE_RUN)):
        raise ValueError(
            f"run={run} fixes {', '.join(fixed)}: leave it out, or leave out run to measure something else."
        )
    found = OmegaConf.load(file)
    assert isinstance(found, DictConfig)
    if "cache_dir" in _overridden():
        found.cache_dir = config.cache_dir
    return found


if __name__ == "__main__":
    launch(evaluate, "conf", "evaluate")
