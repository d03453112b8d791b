"""Turns an error that the user caused into one sentence, without the hints that Hydra gives to its own developers."""

import difflib
import errno
import re
import shlex
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from atomlab.launch.help import GROUPS, program_name
from atomlab.launch.options import did_you_mean, keys_of, top_key

_QUOTES = "\"'"
_GROUPS_OF_HYDRA = ["hydra/launcher", "hydra/sweeper"]
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
    if sentence := full_disk(error, "give the same command again"):
        return sentence
    if unknown := re.search(r"Could not override '([^']+)'", str(error)):
        if sentence := _of_the_other_command(folder, name, unknown[1]):
            return sentence
        known = _GROUPS_OF_HYDRA if unknown[1].startswith("hydra/") else keys_of(_chosen(folder, name, unknown[1]))
        hint = did_you_mean(unknown[1], known)
        return f"There is no key {unknown[1]!r}: {hint}"
    message = str(error).partition("Config search path")[0]
    if unknown := re.search(r"config group '([^']+)' does not exist", message):
        return f"There is no group {unknown[1]!r}: {did_you_mean(unknown[1], [*GROUPS, *_GROUPS_OF_HYDRA])}"
    if absent := re.search(r"Could not find '(\S+)/([^'/]+)'\s+Available options in '[^']*':\s+([\w\s]+)", message):
        group, option, options = absent[1], absent[2], absent[3].split()
        near = difflib.get_close_matches(option, options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        sentence = f"{group}={option} is no option of its group: {hint}There are {', '.join(options)}."
        return f"{sentence} More come with pip install '.[sweeps]'." if group in _GROUPS_OF_HYDRA else sentence
    if "Config group override must be a string" in message:
        return _no_option(Path(folder))
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


def full_disk(error: BaseException, remedy: str) -> str | None:
    """Says what to do about a full disk, in place of the system's own words.

    Args:
        error: any.
        remedy: how to go on once there is room again.

    Returns:
        The sentence; None for another error, and for one that has a sentence of its own.
    """
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    what = error.filename2 or error.filename or "A file of the run"
    return f"{what} could not be written ({error.strerror}): make room on its disk, and {remedy}."


def _no_option(folder: Path) -> str:
    """Names the word of the command line that gives a group something that is no name, such as null, which Hydra does not."""
    for word in sys.argv[1:]:
        group, _, option = word.partition("=")
        if (folder / group).is_dir() and any(re.fullmatch(r"null|[\W\d].*", name) for name in option.split(",")):
            options = sorted(file.stem for file in (folder / group).glob("*.yaml"))
            return f"{word} names no option of its group: There are {', '.join(options)}."
    return "An option of a group has to be a name, and null and numbers are none: see --help for the groups and their options."


def _of_the_other_command(folder: str, name: str, key: str) -> str | None:
    """Says which command reads a key, or runs a study, that this one does not; None if the other one neither does."""
    other = "evaluate" if name == "train" else "train"
    top = key.partition(".")[0]
    mine, theirs = (_top_keys(Path(folder), command) for command in (name, other))
    if top in mine or top not in theirs:
        return None
    words = [word for word in sys.argv[1:] if not word.startswith("--config-dir=")]
    named = [word for word in words if word.startswith((f"{top}=", f"{top}."))]
    culprit = next(iter(named or [word for word in words if word.startswith("experiment=")]), key)
    only_here = [word for word in words if top_key(word) in mine - theirs]
    if only_here and top != "study":
        return (
            f"{culprit} is an option of {program_name(other)}, and {program_name(name)} has none like it: leave it out."
        )
    what = f"{culprit} is a study" if top == "study" else f"{culprit} is an option of {program_name(other)}"
    theirs_too = shlex.join(word for word in words if word not in only_here)
    return f"{what}, and {program_name(name)} does not run it: {program_name(other)} {theirs_too}"


def _top_keys(folder: Path, name: str) -> set[str]:
    """Returns the keys and groups that a primary configuration has of its own."""
    raw = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"))
    assert isinstance(raw, dict)
    groups = (next(iter(entry)) for entry in raw["defaults"] if isinstance(entry, dict))
    return {*map(str, raw), *map(str, groups)} - {"defaults", "hydra"}


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
