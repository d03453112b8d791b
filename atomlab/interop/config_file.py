"""Reads the JSON and YAML files that lie beside the weights of an SAE."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from atomlab.files import regular

_MOST = 1 << 24  # bytes: no configuration of an SAE is larger


def read_config(file: Path) -> dict[str, Any]:
    """Reads a configuration in JSON, or in YAML if its name ends so.

    Args:
        file: the configuration.

    Returns:
        Its fields, unchecked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ordinary file, larger than 16 MiB, unreadable, or not an object.
    """
    if regular(file).stat().st_size > _MOST:
        raise ValueError(f"{file} is larger than {_MOST:,} bytes: expected the configuration of an SAE.")
    language = "YAML" if file.suffix in (".yaml", ".yml") else "JSON"
    try:
        text = file.read_text(encoding="utf-8")
        config = yaml.safe_load(text) if language == "YAML" else json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} is no readable {language} ({said[:200]}): save the SAE again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds a {type(config).__name__}: expected a {language} object.")
    return config


def number(file: Path, config: dict[str, Any], key: str, *, default: float | None = None) -> float:
    """Reads a positive finite number of a configuration.

    Args:
        file: the configuration, for error messages.
        config: its fields.
        key: of the number; a dot goes into an object inside.
        default: taken where the key is missing or null; None makes it required.

    Returns:
        The number.

    Raises:
        ValueError: the number is missing, or not a positive finite number.
    """
    value: object = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None and default is not None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{file} has {key}={value!r:.60}: expected a number above 0.")
    return value


def count(file: Path, config: dict[str, Any], key: str) -> int:
    """Reads a positive whole number of a configuration; raises ValueError if it is missing or no such number."""
    value = number(file, config, key)
    if int(value) != value:
        raise ValueError(f"{file} has {key}={value!r:.60}: expected a whole number.")
    return int(value)


def text(config: dict[str, Any], *keys: str) -> str | None:
    """Returns the first of several fields that is text and not empty; None if none is."""
    found = (config.get(key) for key in keys)
    return next((value for value in found if isinstance(value, str) and value), None)
