"""Trains a TSAE on a language model's activations and measures what it found: `atomlab train`, options in conf/.

The libraries, whose import takes seconds, are imported when there is something to do, and not for `--help` or a misspelt option.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from atomlab.commands.configuration_folder import configuration_folder
from atomlab.launch import launch

if TYPE_CHECKING:
    from atomlab.training.bank import Bank


def train(config: DictConfig, bank: "Bank | None" = None) -> float | None:
    """Trains and measures: `atomlab.commands.training_run.run`."""
    from atomlab.commands.training_run import run

    return run(config, bank)


def _summarise(folder: Path) -> str:
    from atomlab.evaluation.sweep import summarise_sweep

    return summarise_sweep(folder)


def _in_turns(jobs: "Sequence[Callable[[Bank], None]]") -> None:
    from atomlab.training.bank import run_bank

    run_bank(jobs)


def main() -> None:
    """Runs `train` with the options of the command line."""
    folder = str(configuration_folder())
    launch(train, folder, "train", module="atomlab.commands.train", after_sweep=_summarise, together=_in_turns)


if __name__ == "__main__":
    main()
