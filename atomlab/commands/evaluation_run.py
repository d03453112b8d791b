"""What `atomlab evaluate` does once its configuration is composed and checked."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from atomlab.evaluation import Retraining, Study, StudyInputs
from atomlab.identity import check_same, identity_of, read_identity, warn_of_other_code
from atomlab.launch import as_yaml, check_only_read, config_of_run, plain, setting_of, trainer_config

_OF_EVERY_STUDY = ("experiment", "steps", "batch_size", "seed", "sample_sizes", "cache_dir")


def run(config: DictConfig) -> float:
    """Runs one study, which writes its results, figures and report into this run's folder.

    Returns:
        The study's objective.

    Raises:
        FileNotFoundError: `run` is no finished run of train.py.
        ValueError: beside `run`, an override of what that run fixes; its model, corpora or options are not what they were
            when it was trained; or an option that a study without activations does not read.
    """
    trained = config_of_run(config)
    recipe, architecture = instantiate(trained.training), instantiate(trained.sae)
    data = instantiate(trained.activations, _convert_="all")
    study: Study = instantiate(config.study, _convert_="all")
    if not study.reads_activations:
        check_only_read("study", *_OF_EVERY_STUDY)
    identity = identity_of(plain(trained), data.identity if study.reads_activations else {})
    run = None if config.run is None else Path(config.run)
    if run is not None:
        remedy = "put back what was there when it was trained, or train again"
        found = read_identity(run)
        check_same(identity, found, what=f"run={run}", remedy=remedy, may_differ=("code",))
        warn_of_other_code(identity, found, f"run={run}")
    trainer = instantiate(trainer_config(trained, config), _partial_=True)
    text, objective = study(
        StudyInputs(
            data=data,
            retraining=Retraining(architecture, recipe, trained.shrinkage, trainer, trained.batch_size, trained.steps),
            sample_sizes=instantiate(config.sample_sizes),
            folder=Path(HydraConfig.get().runtime.output_dir),
            seed=trained.seed,
            configuration=as_yaml(trained, config.study, config.sample_sizes),
            setting=setting_of(trained, config.sample_sizes, identity),
            identity=identity,
            run=run,
        )
    )
    sys.stdout.write(f"{text}\n")
    return objective
