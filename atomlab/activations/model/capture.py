"""Activations at several hook points from one forward pass, which stops at the deepest of them."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from atomlab.activations.model.sites import HookPoint, find_module, first_tensor

Axes = Literal["sequences", "positions first", "heads first", "rows"]
_SIZES = ((2, 7), (3, 11), (5, 13))  # sequences and tokens of the batches that tell a tensor's axes


class _Reached(Exception):
    """Raised inside the forward pass when everything asked for has been seen."""


@torch.inference_mode()
def capture(model: nn.Module, points: Sequence[HookPoint], inputs: Mapping[str, Tensor]) -> dict[HookPoint, Tensor]:
    """What the model computes at each hook point for one batch.

    A module that passes rows (batch · context, width), heads or positions first gives the same (batch, context, width)
    as any other (`axes`); where sizes coincide, small batches of other sizes tell the axes apart. Of a module that runs
    several times in one pass, the first time counts.

    Args:
        model: in eval mode.
        points: distinct hook points, in any order.
        inputs: keyword arguments of the forward pass: `input_ids` (batch, context), and e.g. `attention_mask`.

    Returns:
        (batch, context, width) tensors in the model's dtype and on its device, exactly as a full pass computes them.
        Cost:
        the layers up to the deepest hook point.

    Raises:
        ValueError: a module that does not exist, that the forward pass never reaches, or that does not pass one vector
            for each token; a model that does not run on these inputs.
    """
    batch, context = inputs["input_ids"].shape
    seen = _seen(model, points, inputs)
    kinds: dict[HookPoint, tuple[Axes, int]] = {}
    if asked := [point for point, x in seen.items() if not is_plain(x.shape, batch, context)]:
        kinds = layouts(model, asked, inputs["input_ids"])
    return {point: arranged(x, _kind(point, x, kinds), batch, context) for point, x in seen.items()}


def probe(model: nn.Module, points: Sequence[HookPoint], vocabulary_size: int) -> dict[HookPoint, int]:
    """The width of the activations at each hook point, from a few tiny batches of random token ids.

    Args:
        model: in eval mode.
        points: distinct hook points, in any order.
        vocabulary_size: ids are drawn below it.

    Raises:
        ValueError: as `capture`, one sentence for the first hook point at fault.
    """
    ids = torch.randint(0, vocabulary_size, (128,), generator=torch.Generator().manual_seed(0))
    return {point: width for point, (_, width) in layouts(model, points, ids).items()}


@torch.inference_mode()
def layouts(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> dict[HookPoint, tuple[Axes, int]]:
    """The arrangement of the axes (`axes`) and the width of the activations at each hook point.

    Batches of different sizes tell them: only the arrangement that fits all of them, with the same width, is the true
    one. That rows come in the order of the tokens is shown by a batch whose sequences are swapped.

    Args:
        model: in eval mode.
        points: distinct hook points, in any order.
        ids: token ids that the batches are made of, any shape.

    Raises:
        ValueError: as `capture`.
    """
    left: dict[HookPoint, dict[Axes, int]] = {}
    for number, (batch, context) in enumerate(_SIZES):
        if number >= 2 and all(len(fits) == 1 for fits in left.values()):
            break
        for point, x in _seen(model, points, {"input_ids": _batch(model, ids, batch, context)}).items():
            fits = axes(x.shape, batch, context)
            left[point] = {kind: width for kind, width in fits.items() if left.get(point, fits).get(kind) == width}
            if not left[point]:
                raise ValueError(_refusal(point, x, batch, context))
    found = {point: next(iter(fits.items())) for point, fits in left.items()}
    rows = [point for point, (kind, _) in found.items() if kind == "rows"]
    if rows:
        _check_order(model, rows, ids)
    return found


def _kind(point: HookPoint, x: Tensor, kinds: Mapping[HookPoint, tuple[Axes, int]]) -> Axes:
    return kinds[point][0] if point in kinds else "sequences" if x.dim() == 3 else "rows"


def _batch(model: nn.Module, ids: Tensor, batch: int, context: int) -> Tensor:
    some = ids.flatten().repeat(-(-batch * context // ids.numel()))[: batch * context]
    return some.view(batch, context).to(next(model.parameters()).device)


def _check_order(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> None:
    """Raises unless swapping the sequences swaps their rows: rows sorted otherwise (by expert) stay where they are."""
    batch, context = _SIZES[0]
    tokens = _batch(model, ids, batch, context)
    if torch.equal(tokens, tokens.flip(0)):
        return
    straight, swapped = (_seen(model, points, {"input_ids": x}) for x in (tokens, tokens.flip(0)))
    for point in points:
        x, y = (seen[point].float().reshape(batch, context, -1) for seen in (straight, swapped))
        if (y - x.flip(0)).norm() > 0.5 * (x - x.flip(0)).norm():
            raise ValueError(
                f"The rows at {point} are not in the order of the tokens, as where tokens are sorted by expert: choose "
                f"another module, such as the layer's whole MLP."
            )


def _refusal(point: HookPoint, x: Tensor, batch: int, context: int) -> str:
    seen = f"{point} passes a tensor of shape {tuple(x.shape)} for {batch} sequences of {context} tokens"
    if "expert" in point.module:
        return f"{seen}: an expert sees only the tokens that are routed to it; choose the layer's whole MLP instead."
    return f"{seen}, which is not one vector of fixed width for each token: choose another module, or its other side."


def _seen(model: nn.Module, points: Sequence[HookPoint], inputs: Mapping[str, Tensor]) -> dict[HookPoint, Tensor]:
    """The first tensor of what each module took or gave, as it is."""
    passed: dict[HookPoint, object] = {}
    with _hooks(model, points, passed), suppress(_Reached):
        run(model, inputs)
    if missing := [str(point) for point in points if point not in passed]:
        raise ValueError(
            f"The forward pass never reached {', '.join(missing)}: choose a module that this model runs on every token."
        )
    seen = {point: first_tensor(value) for point, value in passed.items()}
    for point, x in seen.items():
        if not x.is_floating_point():
            raise ValueError(f"{point} passes whole numbers ({x.dtype}), not activations: choose another site.")
    return seen


def run(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """One forward pass without a cache of keys and values, which is of no use here and costs memory.

    Raises:
        ValueError: the model needs other inputs, such as images, sound or a target text.
    """
    known = inspect.signature(model.forward).parameters  # encoders know no such argument
    try:
        model(**inputs, **({"use_cache": False} if "use_cache" in known else {}))
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The model does not run on {' and '.join(inputs)} alone ({reason.rstrip('.')}): choose a site that comes "
            f"before it needs more, such as one in the encoder."
        ) from error


@contextmanager
def _hooks(model: nn.Module, points: Sequence[HookPoint], seen: dict[HookPoint, object]) -> Iterator[None]:
    def keep(point: HookPoint, value: object) -> None:
        seen.setdefault(point, value)
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


def axes(shape: Sequence[int], batch: int, context: int) -> dict[Axes, int]:
    """The arrangements that a shape may be for `batch` sequences of `context` tokens, each with its width.

    | arrangement | shape | width |
    |---|---|---|
    | sequences | (batch, context, width), also (batch, context, heads, head_dim) | width, heads · head_dim |
    | positions first | (context, batch, width) | width |
    | heads first | (batch, heads, context, head_dim) | heads · head_dim |
    | rows | (batch · context, width), also (batch · context, heads, head_dim) | width, heads · head_dim |

    None fit a tensor that has not one vector for each token; several fit where sizes coincide, and then other sizes
    decide.

    >>> axes((2, 7, 32), 2, 7)
    {'sequences': 32}
    >>> axes((7, 7, 32), 7, 7)
    {'sequences': 32, 'positions first': 32}
    """
    shape, found = tuple(shape), {}
    if len(shape) >= 3 and shape[:2] == (batch, context):
        found["sequences"] = prod(shape[2:])
    if len(shape) == 3 and shape[:2] == (context, batch):
        found["positions first"] = shape[2]
    if len(shape) == 4 and (shape[0], shape[2]) == (batch, context):
        found["heads first"] = shape[1] * shape[3]
    if len(shape) >= 2 and shape[0] == batch * context:
        found["rows"] = prod(shape[1:])
    return found


def is_plain(shape: Sequence[int], batch: int, context: int) -> bool:
    """Whether a tensor is (batch, context, width) or (batch · context, width) as it stands, so that nothing need be asked.

    As many sequences as tokens leave it open, unless there is one of each.
    """
    if len(shape) == 3:
        return tuple(shape[:2]) == (batch, context) and (batch != context or batch == 1)
    return len(shape) == 2 and shape[0] == batch * context


def arranged(x: Tensor, kind: Axes, batch: int, context: int) -> Tensor:
    """The tensor as (batch, context, width); heads stand one after the other in the width."""
    if kind == "positions first":
        x = x.transpose(0, 1)
    elif kind == "heads first":
        x = x.transpose(1, 2)
    return x.reshape(batch, context, -1)


def restored(x: Tensor, kind: Axes, shape: Sequence[int]) -> Tensor:
    """Undoes `arranged`: (batch, context, width) in the arrangement and shape that the module passed."""
    if kind == "positions first":
        return x.transpose(0, 1).reshape(tuple(shape))
    if kind == "heads first":
        return x.unflatten(2, (shape[1], shape[3])).transpose(1, 2)
    return x.reshape(tuple(shape))
