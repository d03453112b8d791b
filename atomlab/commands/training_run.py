"""What `atomlab train` does once its configuration is composed and checked."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from atomlab import ThresholdSAE, load_sae
from atomlab.activations import ActivationDataModule
from atomlab.activations.harvest.preflight import Prepared
from atomlab.evaluation import Nulls, Retraining, RunOrigin, evaluate_run, origin_of, save_trained
from atomlab.groups import Groups
from atomlab.identity import Identity, identity_of, write_identity
from atomlab.interop.checkpoint import read_progress
from atomlab.interop.export.shards import save_shared_sae
from atomlab.launch import folder_of_first_process, plain
from atomlab.report import Row
from atomlab.training.bank import Bank
from atomlab.training.build import build
from atomlab.training.forecast import Forecast, forecast, render
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.loggers import WandbRun
from atomlab.training.lost_process import lost_process_in_words, outlive_the_others
from atomlab.training.module import SAEModule
from atomlab.training.objective import objective_of_row, validation_objective
from atomlab.training.recipe import check_together
from atomlab.training.resuming import RunIdentity, check_resumable, checkpoint_to_resume
from atomlab.training.trainer_checks import check_finished, check_trainer


def run(config: DictConfig, bank: Bank | None = None) -> float | None:
    """Checks, harvests what is missing, trains, validates, saves the TSAE, and writes the table and the report.

    Returns the objective of a sweep: the R² in the S-norm on validation vectors, so that the test split is read by the table
    alone, or the number of the atoms' row that `objective` names. None on all processes but the first, with harvest_only,
    which stops after the harvest with statistics of the sites, and with dry_run, which stops after the checks with sizes,
    memory and time. In a bank (bank=true) it takes its steps in turns with the other jobs of the sweep.
    """
    if config.bank and bank is None:
        raise ValueError("bank=true trains the jobs of a sweep in one process: add -m, or leave it out.")
    folder = Path(HydraConfig.get().runtime.output_dir)
    resume = _checkpoint(config, folder)
    architecture, recipe = instantiate(config.sae), instantiate(config.training)  # refused before the harvest
    nulls = _nulls(config)
    trainer = _trainer(config)
    check_together(architecture, recipe, Groups.of(trainer))
    sample_sizes = instantiate(config.sample_sizes)  # refused before the harvest too
    data = instantiate(config.activations, _convert_="all")
    identity = identity_of(plain(config), data.identity)
    trainer.callbacks.append(RunIdentity(identity))  # pyright: ignore[reportAttributeAccessIssue]
    if resume is not None:
        _go_on_from(resume, identity, trainer)
        # The checkpoint has the atoms.
        recipe = replace(recipe, initial_atoms=replace(recipe.initial_atoms, source="random"))
    if bank is not None:
        data = bank.join(data, identity, trainer)

    def foresee(prepared: Prepared) -> Forecast:
        return forecast(data, prepared, trainer, architecture, shrinkage=config.shrinkage, l0=recipe.initial_l0)

    if config.dry_run:
        prepared = data.prepare()
        sys.stdout.write(f"{render(foresee(prepared), data, prepared, trainer, recipe.initial_l0)}\n")
        return None
    with lost_process_in_words(trainer):
        data.harvest(trainer, check=foresee)  # on all of its processes
    if config.harvest_only:
        return data.print_statistics()
    data.setup()
    seed_everything(config.seed, workers=True, verbose=False)  # here, since a harvest draws random numbers too
    groups = Groups.of(trainer)
    module = build(data, architecture, recipe, shrinkage=config.shrinkage, sample_sizes=sample_sizes, groups=groups)
    _announce(trainer, config, identity, folder)
    with lost_process_in_words(trainer):
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    check_finished(trainer, config.steps)
    if bank is not None:
        bank.wait_for_all()
    objective = validation_objective(trainer, module, data)
    _end_together(module, folder, origin_of(data, identity))
    if not trainer.is_global_zero:
        return None
    origin = RunOrigin(OmegaConf.to_yaml(config), identity)
    rows = _saved_and_measured(config, module, data, nulls, origin, folder)
    _finish(trainer, rows, folder)
    return objective if config.objective is None else objective_of_row(rows[0], config.objective)


def _go_on_from(resume: Path, identity: Identity, trainer: Trainer) -> None:
    """Refuses a checkpoint of another training, and says on standard error where the run goes on."""
    checkpoint = read_progress(resume)
    check_resumable(checkpoint, identity, f"resume={resume}")
    if trainer.is_global_zero:
        steps = f"{checkpoint['global_step']} of {trainer.max_steps} steps"
        sys.stderr.write(f"atomlab: the training goes on after {steps}, from {resume}\n")


def _announce(trainer: Trainer, config: DictConfig, identity: Identity, folder: Path) -> None:
    """Tells the loggers what is trained, and writes it into the folder of the run."""
    for logger in trainer.loggers:
        logger.log_hyperparams(plain(config))
    if trainer.is_global_zero:
        write_identity(folder, identity)


def _end_together(module: SAEModule, folder: Path, metadata: dict[str, object]) -> None:
    """Ends the processes' work together: the table is that of one, and its metrics must not wait for others."""
    if not module.sae.shard.is_whole:
        sae = module.folded()
        assert isinstance(sae, ThresholdSAE)  # no other kind is shared
        save_shared_sae(sae, folder / "sae", metadata)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    outlive_the_others()


def _trainer(config: DictConfig) -> Any:  # a Trainer, whose `callbacks` no type checker sees
    """Builds the trainer with its callbacks and its logger, and checks it."""
    callbacks = list(instantiate(config.callbacks).values())
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=instantiate(config.logger).get("logger"))
    check_trainer(trainer, config.steps)
    return trainer


def _checkpoint(config: DictConfig, folder: Path) -> Path | None:
    """Finds the checkpoint that `resume` means, and writes its path into the configuration."""
    named = any(word.startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra)
    found = checkpoint_to_resume(config.resume, folder_of_first_process(folder), named=named)
    config.resume = None if found is None else str(found)
    return found


def _nulls(config: DictConfig) -> Nulls:
    """Makes the further controls of the closing table, whose training is that of the run from its start."""
    again = instantiate(config.trainer, _partial_=True)
    architecture, recipe = instantiate(config.sae), instantiate(config.training)
    retraining = Retraining(architecture, recipe, config.shrinkage, again, config.batch_size, config.steps)
    return Nulls(plain(config)["nulls"], retraining)


def _saved_and_measured(
    config: DictConfig, module: SAEModule, data: ActivationDataModule, nulls: Nulls, origin: RunOrigin, folder: Path
) -> list[Row]:
    """Saves the TSAE in `sae/`, measures it, and prints the table, whose rows are returned.

    One that several processes shared is in `sae/` already.
    """
    if module.sae.shard.is_whole:
        sae = module.folded().cpu()
        save_trained(sae, folder / "sae", data, origin.identity, config.sample_sizes.measured)
    else:
        sae = load_sae(folder / "sae")
    rows, text = evaluate_run(
        sae,
        data,
        instantiate(config.sample_sizes),
        folder,
        shrinkage=config.shrinkage,
        origin=origin,
        nulls=nulls,
    )
    place = folder.resolve()
    sys.stdout.write(f"{text}\natoms: {place / 'sae'}\nnumbers: {place / 'results.json'} and results.csv\n")
    return rows


def _finish(trainer: Any, rows: list[Row], folder: Path) -> None:
    """Sends the table to all loggers, to wandb what is asked for of the folder, ends them, and asks for the last checkpoint."""
    for logger in trainer.loggers:
        logger.log_metrics({f"table/{row['unit']}/{k}": v for row in rows for k, v in row.items() if type(v) is float})
        if isinstance(logger, WandbRun):
            logger.log_rows("table", rows)
            logger.log_folder(folder)
        logger.finalize("success")
        if isinstance(logger, WandbRun):
            logger.end()
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, LastCheckpoint):
            callback.require_saved()
