"""train.py with a line in the file $READS for every split that is read, and for what has begun or ended between."""

import functools
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import atomlab.evaluation
import atomlab.training.build
from atomlab.activations.store.activation_store import ActivationStore


def note(word: str) -> None:
    with Path(os.environ["READS"]).open("a") as stream:
        stream.write(f"{word}\n")


def noted(function: Callable, before: str = "", after: str = "") -> Callable:
    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        note(before)
        result = function(*arguments, **named)
        note(after)
        return result

    return run


def read(store: ActivationStore, rows: torch.Tensor) -> torch.Tensor:
    note(store._split)
    return gather(store, rows)


if __name__ == "__main__":
    root = Path(__file__).parent.parent
    sys.path.insert(0, str(root))
    gather = ActivationStore.__getitem__
    ActivationStore.__getitem__ = read
    atomlab.training.build.build = noted(atomlab.training.build.build, after="built")
    atomlab.evaluation.evaluate_run = noted(atomlab.evaluation.evaluate_run, before="table")
    runpy.run_path(str(root / "train.py"), run_name="__main__")
