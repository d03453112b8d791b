"""How each kind of SAE is built and trained by default, for comparisons at the same data, width and L0: conf/sae in Python."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from atomlab.sae import Incoherence, TargetL0
from atomlab.training.recipe import Architecture, Kind, Revival, TrainingRecipe

_OF_DEAD_LATENTS = 1 / 32  # Gao et al. 2024
_ARGUMENTS = {"sae.expansion": "d_sae", "sae.activation": "kind", "training.sparsity.target": "l0"}  # of `atomlab.fit`


def defaults_of(kind: Kind, expansion: float, l0: float) -> tuple[Architecture, TrainingRecipe]:
    """Returns what `sae=tsae`, `relu`, `top_k`, `batch_top_k` or `gated` stand for on the command line.

    A TSAE has the default recipe. The others have that of their papers: the Euclidean error, an encoder of its own, no noise,
    no incoherence term, and for TopK and BatchTopK a term for dead latents.

    Args:
        kind: `threshold` for a TSAE, or the activation of a baseline.
        expansion: d_sae / d_in.
        l0: mean number of latents that are to fire on a vector.

    Returns:
        The architecture and the recipe.

    Raises:
        ValueError: an unknown kind or a number outside of its range; the message names the key of conf/.
    """
    if kind == "threshold":
        return Architecture(expansion=expansion), TrainingRecipe(TargetL0(1.0, l0))
    recipe = TrainingRecipe(
        TargetL0(1.0, l0),
        noise=0.0,
        incoherence=Incoherence(0.0),
        revival=Revival(coefficient=_OF_DEAD_LATENTS if kind in ("top_k", "batch_top_k") else 0.0),
    )
    return Architecture(expansion, alpha=0.0, tied=False, activation=kind), recipe


def with_changes(
    architecture: Architecture, recipe: TrainingRecipe, changes: Mapping[str, Any]
) -> tuple[Architecture, TrainingRecipe]:
    """Changes single choices of an architecture and a recipe.

    Args:
        architecture: what `sae=` stands for.
        recipe: what `training=` stands for.
        changes: values by their names on the command line, such as `{"sae.tied": False, "training.noise": 0.0}`.

    Returns:
        The architecture and the recipe with these values.

    Raises:
        ValueError: a name that is none or that an argument of `atomlab.fit` sets, or a value outside of its range; the
            message names it.
    """
    found: dict[str, Any] = {"sae": architecture, "training": recipe}
    for name, value in changes.items():
        group, *rest = name.split(".")
        if name in _ARGUMENTS:
            raise ValueError(f"{name!r} is set by the argument {_ARGUMENTS[name]}: give that one.")
        if group not in found or not rest:
            raise ValueError(f"{name!r} is no choice of a fit: expected a name such as sae.tied or training.noise.")
        found[group] = _changed(found[group], rest, value, name)
    return found["sae"], found["training"]


def _changed(part: Any, path: list[str], value: Any, name: str) -> Any:
    own, *rest = path
    known = _choices(part)
    if own not in known:
        raise ValueError(
            f"{name!r} is no choice of a fit: expected {', '.join(known) or 'no dot'} in place of {own!r}."
        )
    now = getattr(part, own)
    if not rest and (inside := _choices(now)):
        raise ValueError(f"{name!r} is a group of choices: expected one of {', '.join(inside)}.")
    if not rest and isinstance(now, bool) and not isinstance(value, bool):
        raise ValueError(f"{name}={value}: expected True or False.")
    return replace(part, **{own: _changed(now, rest, value, name) if rest else value})


def _choices(part: Any) -> list[str]:
    """The names of the choices that a part has; none where it is a plain value."""
    return [each.name for each in fields(part)] if is_dataclass(part) else []
