"""The command line: how train.py and evaluate.py are started, checked, kept apart from one another, and stopped."""

from atomlab.launch.folders import Claim
from atomlab.launch.shell import launch, plain

__all__ = ["Claim", "launch", "plain"]
