"""Trains a TSAE on the activations of a language model and measures what it found: `python train.py`, options in conf/."""

from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from atomlab import save_sae
from atomlab.evaluation import evaluate_run
from atomlab.launch import launch


def train(config: DictConfig) -> float | None:
    """Harvests what is missing, trains, tests, and on the first process saves the TSAE and writes the table and the report.

    With `harvest_only` it stops after the harvest and prints statistics of each site. Returns the atoms' held-out R² in the S-norm (on the first process), the objective of a sweep.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.activations)
    trainer = instantiate(
        config.trainer,
        callbacks=list(instantiate(config.callbacks).values()),
        logger=instantiate(config.logger).get("logger"),
    )
    data.harvest(trainer)
    if config.harvest_only:
        if trainer.is_global_zero:
            print(data.describe())
        return None
    data.setup()
    module = instantiate(config.sae, data=data)
    trainer.fit(module, data, ckpt_path=config.resume)
    trainer.test(module, data, verbose=False)
    objective = None
    if trainer.is_global_zero:
        folder = Path(HydraConfig.get().runtime.output_dir)
        sae = module.folded().cpu()
        save_sae(sae, folder / "sae", {"model_name": data.model.title, "hook_name": str(data.point)})
        rows, text = evaluate_run(
            sae,
            data,
            instantiate(config.metrics),
            folder,
            shrinkage=config.sae.shrinkage,
            configuration=OmegaConf.to_yaml(config),
            seed=config.seed,
        )
        print(text)
        if trainer.logger is not None:
            trainer.logger.log_metrics(
                {
                    f"table/{row['unit']}/{key}": float(value)
                    for row in rows
                    for key, value in row.items()
                    if isinstance(value, float)
                }
            )
        objective = rows[0]["r2_test_s"]
    for logger in trainer.loggers:
        logger.finalize("success")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return objective


if __name__ == "__main__":
    launch(train, "conf", "train")
