"""Measures units with controls: `atomlab evaluate run=outputs/...`, or a study: `experiment=...`; options in conf/.

The libraries, whose import takes seconds, are imported when there is something to do, and not for `--help` or a misspelt option.
"""

from omegaconf import DictConfig

from atomlab.commands.configuration_folder import configuration_folder
from atomlab.launch import launch


def evaluate(config: DictConfig) -> float:
    """Runs a study: `atomlab.commands.evaluation_run.run`."""
    from atomlab.commands.evaluation_run import run

    return run(config)


def main() -> None:
    """Runs `evaluate` with the options of the command line."""
    launch(evaluate, str(configuration_folder()), "evaluate", module="atomlab.commands.evaluate")


if __name__ == "__main__":
    main()
