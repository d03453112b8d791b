"""Whether a loaded model's weights are those of its file: what transformers only warns of, made an error.

transformers fills weights that the file lacks with random numbers, and leaves out those that it has no place for. Both
happen to a file saved through a wrapper of torch.compile, DDP or PEFT, or with another family's configuration. They
matter where the forward pass runs: a head or a pooler behind the deepest hook point may well be missing, and the
weights of layers that are left out are not expected to find a place.
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
_NAMED = 3


def check_weights(
    model: nn.Module, info: dict[str, Any], points: Sequence[HookPoint] | None, ids: Tensor, title: str
) -> None:
    """Raises unless every weight that runs up to the hook points came from the file, and the file has no more of them.

    Args:
        model: as loaded.
        info: `from_pretrained(..., output_loading_info=True)`'s.
        points: hook points; None: the whole model, but for an encoder's pooler.
        ids: (batch, context) token ids for the pass that finds out what runs; it is made only if there is a doubt.
        title: of the model, for the message.

    Raises:
        ValueError: weights that are missing, of another shape, or without a place in the model.
    """
    shapes = {name: (tuple(saved), tuple(wanted)) for name, saved, wanted in info["mismatched_keys"]}
    missing, unexpected = set(info["missing_keys"]) - set(shapes), set(info["unexpected_keys"])
    homeless = {name for name in unexpected if _homeless(model, name)}
    if not (missing or shapes or homeless):
        return
    used = _used(model, points, ids)
    if wrong := sorted(name for name in shapes if used.weight(name)):
        saved, wanted = shapes[wrong[0]]
        raise ValueError(
            f"The weights of {title} do not fit its configuration: {wrong[0]} has shape {saved} in the file and {wanted} "
            f"by config.json{_more(wrong, 1)}; give the configuration that the weights were saved with."
        )
    if lacking := sorted(name for name in missing if used.weight(name)):
        raise ValueError(
            f"The weights of {title} lack {_some(lacking)}, which would run with random numbers: {_remedy(unexpected)}."
        )
    if extra := sorted(name for name in homeless if used.weight(name)):
        raise ValueError(
            f"The weights of {title} hold {_some(extra)}, for which its configuration has no place: give the "
            f"configuration that the weights were saved with."
        )


def _remedy(unexpected: Collection[str]) -> str:
    for wrapper in _WRAPPERS:
        if any(name.startswith(wrapper) for name in unexpected):
            return (
                f"the file's names begin with {wrapper!r}, so a wrapper was saved in place of the model; save the model "
                f"inside it with save_pretrained"
            )
    return "download or save the model again with all its files, or give the configuration that it was saved with"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + _more(names, _NAMED)


def _more(names: Sequence[str], said: int) -> str:
    return f" and {len(names) - said} more" if len(names) > said else ""


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _homeless(model: nn.Module, name: str) -> bool:
    """Whether a weight or bias that found no place belongs to a layer that the model has.

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


@dataclass(frozen=True)
class _Used:
    """What a forward pass ran: names of the modules that began, and of those that came to their end."""

    modules: dict[str, nn.Module]
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    whole: bool = False

    def weight(self, name: str) -> bool:
        """Whether a parameter belongs to what ran.

        A module that did not run inside one that came to its end counts: an expert that no token was routed to, or
        weights that its parent uses without calling it.
        """
        owner = _owner(name)
        if self.whole:
            return "pooler" not in owner.split(".")
        if owner in self.begun and owner not in self.ended:
            return bool(next(self.modules[owner].children(), None))  # of a module without parts only the input was read
        while owner and owner not in self.begun:
            owner = _owner(owner)
        return owner in self.ended


def _used(model: nn.Module, points: Sequence[HookPoint] | None, ids: Tensor) -> _Used:
    modules = dict(model.named_modules())
    used = _Used(modules, whole=points is None)
    if points is None:
        return used
    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: used.begun.add(name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: used.ended.add(name)))
    try:
        with torch.inference_mode():
            capture(model, points, {"input_ids": ids})
    finally:
        for handle in handles:
            handle.remove()
    return used


def cut_layers(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> None:
    """Drops the layers behind the deepest hook point of each list of layers, if the activations stay bit-equal.

    One batch is captured before and after; where anything differs, or the shorter model does not run, it stays whole.
    Cost: two forward passes over `ids`.

    Raises:
        ValueError: as `capture`, of the whole model.
    """
    depths: dict[str, int] = {}
    for point in points:
        if (place := layer_of(model, point)) is not None:
            depths[place[0]] = max(depths.get(place[0], 0), place[1] + 1)
    depths = {name: depth for name, depth in depths.items() if depth < len(_children(model, name))}
    if not depths:
        return
    inputs = {"input_ids": ids}
    whole = capture(model, points, inputs)
    lists = {name: _children(model, name) for name in depths}
    for name, depth in depths.items():
        _put(model, name, nn.ModuleList(list(lists[name])[:depth]))
    same = False
    with suppress(Exception):  # a forward pass of someone else's, on layers it did not expect
        cut = capture(model, points, inputs)
        same = all(torch.equal(cut[point], whole[point]) for point in points)
    if not same:
        for name, layers in lists.items():
            _put(model, name, layers)


def layer_of(model: nn.Module, point: HookPoint) -> tuple[str, int] | None:
    """The outermost list of layers on the way to a hook point, and its number in it; None if there is none."""
    module, seen = model, []
    for part in point.module.split("."):
        if isinstance(module, nn.ModuleList):
            return ".".join(seen), int(part)
        children = dict(module.named_children())
        if part not in children:
            return None
        module, seen = children[part], [*seen, part]
    return None


def _children(model: nn.Module, name: str) -> nn.ModuleList:
    found = model.get_submodule(name)
    assert isinstance(found, nn.ModuleList)
    return found


def _put(model: nn.Module, name: str, layers: nn.ModuleList) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layers)
