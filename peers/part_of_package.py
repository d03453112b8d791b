"""Modules of a package whose own `__init__` imports libraries that these modules do not need."""

import importlib
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType


def import_part(distribution: str, module: str, *without_init: str) -> ModuleType:
    """Imports a module of a distribution, and runs no `__init__` of the packages named in `without_init`."""
    root = Path(str(metadata.distribution(distribution).locate_file("")))
    for name in without_init:
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")))]
            sys.modules[name] = package
    return importlib.import_module(module)
