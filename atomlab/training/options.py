"""What the options of `build` must be, so far as that can be known without data."""

from collections.abc import Callable, Mapping
from typing import Any

_Rule = tuple[Callable[[float], bool], str]
_POSITIVE: _Rule = (lambda value: 0 < value < float("inf"), "a number above 0")
_NOT_NEGATIVE: _Rule = (lambda value: 0 <= value < float("inf"), "0 or a number above it")
_SHARE: _Rule = (lambda value: 0 <= value <= 1, "a share of the run, from 0 to 1")
_COUNT: _Rule = (lambda value: 1 <= value < float("inf"), "1 or more")
_RULES: Mapping[str, _Rule] = {
    "expansion": _POSITIVE,
    "bandwidth": _POSITIVE,
    "initial_l0": _POSITIVE,
    "calibration_samples": _COUNT,
    "shrinkage": _NOT_NEGATIVE,
    "learning_rate": _POSITIVE,
    "threshold_learning_rate": _NOT_NEGATIVE,
    "warm_up": _SHARE,
    "decay": _SHARE,
    "freeze": _SHARE,
    "dead_after": _COUNT,
    "dead_coefficient": _NOT_NEGATIVE,
}
_DERIVED = ("learning_rate", "threshold_learning_rate")  # where they are None
_WORDS = {
    "inputs": ("raw", "unit_mean_square", "whitened"),
    "implementation": ("auto", "dense", "sparse", "screened"),
}


def check_values(options: Mapping[str, Any]) -> None:
    """Refuses options of `atomlab.training.module.build` that no data could train with; `build` calls this too.

    Shares may overlap (`warm_up` and `decay` are both applied where they do), and a freeze of 1 trains on fixed
    thresholds throughout.

    Args:
        options: by their names, as in conf/sae/tsae.yaml; others are left alone.

    Raises:
        ValueError: the first one that cannot be, by its name and value.
    """
    for name, (holds, expected) in _RULES.items():
        value = options.get(name)
        if name not in options or (value is None and name in _DERIVED):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise ValueError(f"sae.{name}={value} should be {expected}.")
    for name, words in _WORDS.items():
        if name in options and options[name] not in words:
            raise ValueError(f"sae.{name}={options[name]} is unknown: choose {', '.join(words[:-1])} or {words[-1]}.")
