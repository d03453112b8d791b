"""Activations at several hook points from one forward pass, which stops at the deepest of them."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from atomlab.activations.sites import HookPoint, find_module, first_tensor


class _Reached(Exception):
    """Raised inside the forward pass when everything asked for has been seen."""


@torch.inference_mode()
def capture(model: nn.Module, points: Sequence[HookPoint], inputs: Mapping[str, Tensor]) -> dict[HookPoint, Tensor]:
    """What the model computes at each hook point for one batch.

    Args:
        model: in eval mode.
        points: distinct hook points, in any order.
        inputs: keyword arguments of the forward pass, e.g. `input_ids` (batch, context) and `attention_mask`.

    Returns:
        (batch, context, width) tensors in the model's dtype and on its device, exactly as a full pass computes them.
        Cost:
        the layers up to the deepest hook point.

    Raises:
        ValueError: a module that does not exist, or that the forward pass never reaches.
    """
    seen: dict[HookPoint, Tensor] = {}
    with _hooks(model, points, seen), suppress(_Reached):
        model(**inputs, **_without_cache(model))
    if missing := [str(point) for point in points if point not in seen]:
        raise ValueError(f"The forward pass never reached {', '.join(missing)}: choose a module that this model runs.")
    return seen


@contextmanager
def _hooks(model: nn.Module, points: Sequence[HookPoint], seen: dict[HookPoint, Tensor]) -> Iterator[None]:
    def keep(point: HookPoint, value: object) -> None:
        seen[point] = first_tensor(value)
        if len(seen) == len(points):
            raise _Reached

    def on_input(point: HookPoint):
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            keep(point, args or (kwargs.get("hidden_states", next(iter(kwargs.values()), None)),))

        return hook

    def on_output(point: HookPoint):
        return lambda _module, _args, output: keep(point, output)

    handles = []
    try:
        for point in points:
            module = find_module(model, point)
            if point.side == "input":
                handles.append(module.register_forward_pre_hook(on_input(point), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(on_output(point)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_cache(model: nn.Module) -> dict[str, bool]:
    """Past keys and values are of no use here and cost memory; encoders know no such argument."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def probe(model, points, vocabulary_size):
    """INTERIM"""
    seen = capture(
        model, points, {"input_ids": torch.zeros(2, 7, dtype=torch.int64, device=next(model.parameters()).device)}
    )
    return {point: x.shape[-1] for point, x in seen.items()}
