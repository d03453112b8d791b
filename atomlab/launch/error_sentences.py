"""Turns an error that the user caused into one sentence, without the hints that Hydra gives to its own developers."""

import re
import sys

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig

from atomlab.launch.options import did_you_mean, keys_of

_QUOTES = "\"'"


def one_sentence(error: BaseException, folder: str, name: str) -> str:
    """Turns the message of an error into one line.

    An unknown key is named with the nearest known one, and a value that Hydra cannot read with quotes that it can.

    Args:
        error: as it was raised. What Hydra wraps around the error of a `_target_` is taken off.
        folder: of the configuration.
        name: of the primary configuration, whose keys are the known ones.

    Returns:
        The message without line breaks; the name of the error's type if it has no message.
    """
    error = _root_cause(error)
    if unknown := re.match(r"Could not override '([^']+)'", str(error)):
        hint = did_you_mean(unknown[1], keys_of(_chosen(folder, name, unknown[1])))
        return f"There is no key {unknown[1]!r}: {hint}"
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        reason = str(error).partition("\n")[0]
        return f"{error.override} cannot be read ({reason}): put it into both kinds of quotes: \"{key}='{value.strip(_QUOTES)}'\""
    lines: list[str] = []
    for line in map(str.strip, str(error).splitlines()):
        if line.startswith(("Config search path", "full_key:")):
            break
        if line and "HYDRA_FULL_ERROR" not in line and not line.startswith("object_type="):
            lines.append(line)
    return " ".join(lines) or type(error).__name__


def _root_cause(error: BaseException) -> BaseException:
    """Returns the error inside those that Hydra wraps around it, or raises without a message of their own."""
    while error.__cause__ is not None and (isinstance(error, InstantiationException) or not str(error)):
        error = error.__cause__
    return error


def _chosen(folder: str, name: str, unknown: str) -> DictConfig:
    """Composes the configuration with the options that the command line chooses from groups, as far as that succeeds."""
    choices = [word for word in sys.argv[1:] if re.match(r"[\w/@]+=[\w/]+$", word) and not word.startswith(unknown)]
    with initialize_config_dir(folder, version_base="1.3"):
        try:
            return compose(name, choices)
        except HydraException:
            return compose(name)
