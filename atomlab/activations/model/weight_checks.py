"""Checks that a loaded model has the weights of its file, and drops the layers that no hook point needs.

transformers fills weights that the file lacks with random numbers, and leaves out those for which the model has no
module; it only warns of both. Both happen with a file that was saved through a wrapper (torch.compile, DDP, PEFT), or
with the configuration of another family. They matter only where the forward pass runs: a head or a pooler behind the
deepest hook point may be missing, and the weights of deeper layers may be left over.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from atomlab.activations.model.capture import capture
from atomlab.activations.model.sites import HookPoint

_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.", "model._orig_mod.", "model.module.")
_NAMES_SHOWN = 3
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LoadingReport:
    """How the weights of a file fit the model that they were loaded into.

    Attributes:
        missing: names of the model's weights that the file lacks.
        unexpected: names of the file's weights for which the model has no parameter.
        mismatched: shape in the file and shape in the model, by the name of the weight, where the two differ.
    """

    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: dict[str, tuple[Shape, Shape]]

    @classmethod
    def of(cls, info: dict[str, Any]) -> "LoadingReport":
        """Returns the report of `from_pretrained(..., output_loading_info=True)`, whose second result is `info`."""
        shapes = {name: (tuple(saved), tuple(wanted)) for name, saved, wanted in info["mismatched_keys"]}
        return cls(frozenset(info["missing_keys"]) - set(shapes), frozenset(info["unexpected_keys"]), shapes)

    def about(self, names: Collection[str]) -> "LoadingReport":
        """Returns the report with those of the model's weights alone that have one of these names."""
        mismatched = {name: shapes for name, shapes in self.mismatched.items() if name in names}
        return LoadingReport(self.missing & set(names), self.unexpected, mismatched)


def check_weights(
    model: nn.Module, report: LoadingReport, points: Sequence[HookPoint] | None, ids: Tensor, title: str
) -> None:
    """Raises unless every weight that runs up to the hook points came from the file, and no such weight is left over.

    Args:
        model: the model as it was loaded.
        report: how the weights of the file fit it.
        points: the hook points; None checks the whole model, but for an encoder's pooler.
        ids: token ids (batch, context) of a forward pass that finds out which modules run.
        title: name of the model, for error messages.

    Raises:
        ValueError: a weight that runs is missing or of another shape, or the file has a weight of a layer that runs for
            which the model has no parameter.

    Cost: one forward pass up to the deepest hook point if the report names any weight, nothing otherwise.
    """
    leftover = {name for name in report.unexpected if _belongs_to_a_layer(model, name)}
    if not (report.missing or report.mismatched or leftover):
        return
    trace = _trace(model, points, ids)
    if wrong := sorted(name for name in report.mismatched if trace.used(name)):
        saved, wanted = report.mismatched[wrong[0]]
        raise ValueError(
            f"The weights of {title} do not fit its configuration: {wrong[0]} has shape {saved} in the file and {wanted} "
            f"by config.json{_and_more(wrong, 1)}; give the configuration that the weights were saved with."
        )
    if lacking := sorted(name for name in report.missing if trace.used(name)):
        raise ValueError(
            f"The weights of {title} lack {_some_of(lacking)}, which would run with random numbers: "
            f"{_remedy(report.unexpected)}."
        )
    if extra := sorted(name for name in leftover if trace.used(name)):
        raise ValueError(
            f"The weights of {title} hold {_some_of(extra)}, for which its configuration has no parameter: give the "
            f"configuration that the weights were saved with."
        )


def drop_deeper_layers(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> None:
    """Drops the layers behind the deepest hook point of each list of layers, if the activations stay equal to the bit.

    One batch is captured with all layers and with the first ones alone. The model stays whole if any activation
    differs, or if it does not run without its last layers.

    Args:
        model: the whole model; changed in place.
        points: the hook points whose activations must not change.
        ids: token ids (batch, context) of the batch.

    Raises:
        ValueError: as `capture`, about the whole model.

    Cost: two forward passes over `ids`.
    """
    depths: dict[str, int] = {}
    for point in points:
        if (found := layer_of(model, point)) is not None:
            name, number = found
            depths[name] = max(depths.get(name, 0), number + 1)
    depths = {name: depth for name, depth in depths.items() if depth < len(_layer_list(model, name))}
    if not depths:
        return
    inputs = {"input_ids": ids}
    expected = capture(model, points, inputs)
    whole = {name: _layer_list(model, name) for name in depths}
    for name, depth in depths.items():
        _set_layer_list(model, name, nn.ModuleList(list(whole[name])[:depth]))
    equal = False
    with suppress(Exception):  # the model's own code may fail in any way with fewer layers than it expects
        seen = capture(model, points, inputs)
        equal = all(torch.equal(seen[point], expected[point]) for point in points)
    if not equal:
        for name, layers in whole.items():
            _set_layer_list(model, name, layers)


def layer_of(model: nn.Module, point: HookPoint) -> tuple[str, int] | None:
    """Returns the layer that a hook point lies in.

    Args:
        model: the model, with or without weights.
        point: the hook point.

    Returns:
        The path of the outermost list of layers on the way to the module, and the number of the layer in it; None if
        there is no such list.
    """
    module, path = model, []
    for part in point.module.split("."):
        if isinstance(module, nn.ModuleList):
            return ".".join(path), int(part)
        children = dict(module.named_children())
        if part not in children:
            return None
        module, path = children[part], [*path, part]
    return None


@dataclass(frozen=True)
class _Trace:
    """What a forward pass ran.

    Attributes:
        modules: all modules of the model by their names.
        begun: names of the modules whose forward pass began.
        ended: names of those whose forward pass came to its end.
        whole: whether all modules count as run, but for poolers.
    """

    modules: dict[str, nn.Module]
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    whole: bool = False

    def used(self, name: str) -> bool:
        """Whether the parameter of this name belongs to what ran.

        A module that did not run inside one that came to its end counts as run: an expert that no token was routed to,
        or weights that the parent uses without calling their module.
        """
        owner = _owner(name)
        if self.whole:
            return "pooler" not in owner.split(".")
        if owner in self.begun and owner not in self.ended:
            return bool(next(self.modules[owner].children(), None))  # of a module without parts only the input was read
        while owner and owner not in self.begun:
            owner = _owner(owner)
        return owner in self.ended


def _trace(model: nn.Module, points: Sequence[HookPoint] | None, ids: Tensor) -> _Trace:
    modules = dict(model.named_modules())
    trace = _Trace(modules, whole=points is None)
    if points is None:
        return trace
    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: trace.begun.add(name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: trace.ended.add(name)))
    try:
        with torch.inference_mode():
            capture(model, points, {"input_ids": ids})
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _belongs_to_a_layer(model: nn.Module, name: str) -> bool:
    """Whether an unexpected weight or bias belongs to a numbered layer that the model has, or to a module with a weight.

    Buffers of old files (attention masks named `bias`, rotary frequencies) and scales of other programs do not count.
    """
    modules = dict(model.named_modules())
    owner, kind = _owner(name), name.rpartition(".")[2]
    if owner in modules:
        return kind == "bias" and isinstance(getattr(modules[owner], "weight", None), Tensor)
    above = _owner(owner)
    numbered = any(part.isdecimal() for part in above.split("."))
    return (
        numbered and above in modules and not isinstance(modules[above], nn.ModuleList) and kind in {"weight", "bias"}
    )


def _remedy(unexpected: Collection[str]) -> str:
    for wrapper in _WRAPPERS:
        if any(name.startswith(wrapper) for name in unexpected):
            return (
                f"the file's names begin with {wrapper!r}, so a wrapper was saved instead of the model; save the model "
                f"inside it with save_pretrained"
            )
    return "download or save the model again with all its files, or give the configuration that it was saved with"


def _some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + _and_more(names, _NAMES_SHOWN)


def _and_more(names: Sequence[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""


def _owner(name: str) -> str:
    """The path of the module that a parameter or module belongs to."""
    return name.rpartition(".")[0]


def _layer_list(model: nn.Module, name: str) -> nn.ModuleList:
    found = model.get_submodule(name)
    assert isinstance(found, nn.ModuleList)
    return found


def _set_layer_list(model: nn.Module, name: str, layers: nn.ModuleList) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layers)
