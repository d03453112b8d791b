"""Trains a TSAE on a language model's activations and measures what it found: `python train.py`, options in conf/."""

import sys
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from atomlab import save_sae
from atomlab.evaluation import evaluate_run, origin_of
from atomlab.launch import launch
from atomlab.training.options import check_options
from atomlab.training.trainer import check_trainer


def train(config: DictConfig) -> float | None:
    """Harvests what is missing, trains, tests, saves the TSAE, and writes the table and the report.

    Returns the atoms' held-out R² in the S-norm, the objective of a sweep; None on all processes but the first, which
    are done once the test is, and with harvest_only, which stops after the harvest with statistics of the sites.
    """
    data = instantiate(config.activations)
    callbacks = list(instantiate(config.callbacks).values())
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=instantiate(config.logger).get("logger"))
    check_trainer(trainer)
    instantiate(config.sae.sparsity)  # what can be wrong with options is found before the harvest
    check_options(config.sae)
    data.harvest(trainer)  # on all of its processes
    if config.harvest_only:
        return data.print_statistics()
    data.setup()
    seed_everything(config.seed, workers=True, verbose=False)  # here, since a harvest draws random numbers too
    module = instantiate(config.sae, data=data)
    trainer.fit(module, data, ckpt_path=config.resume, weights_only=True)
    trainer.test(module, data, verbose=False, weights_only=True)
    if torch.distributed.is_initialized():  # the table is one process's work, and its metrics must not wait for others
        torch.distributed.destroy_process_group()
    if not trainer.is_global_zero:
        return None
    folder = Path(HydraConfig.get().runtime.output_dir)
    sae = module.folded().cpu()
    save_sae(sae, folder / "sae", origin_of(data))
    rows, text = evaluate_run(
        sae,
        data,
        instantiate(config.metrics),
        folder,
        shrinkage=config.sae.shrinkage,
        configuration=OmegaConf.to_yaml(config),
        seed=config.seed,
    )
    sys.stdout.write(f"{text}\n")
    for logger in trainer.loggers:
        logger.log_metrics({f"table/{row['unit']}/{k}": v for row in rows for k, v in row.items() if type(v) is float})
        logger.finalize("success")
    return rows[0]["r2_test_s"]


if __name__ == "__main__":
    launch(train, "conf", "train")
