"""The command line: how train.py and evaluate.py are started, checked, kept apart from one another, and stopped."""

from atomlab.launch.folders import Claim
from atomlab.launch.shell import launch, plain
from atomlab.launch.trained_run import as_yaml, config_of_run, setting_of, trainer_config

__all__ = ["Claim", "as_yaml", "config_of_run", "launch", "plain", "setting_of", "trainer_config"]
