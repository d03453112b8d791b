"""Reads activations at several hook points in one forward pass, which stops as soon as all of them have been seen.

Modules pass their activations with the axes in different orders. `capture` gives all of them as (batch, context,
width), which is called the standard order here.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from atomlab.activations.model.sites import HookPoint, find_module, first_tensor

AxisOrder = Literal["batch first", "positions first", "heads first", "rows"]
_TRIAL_SIZES = ((2, 7), (3, 11), (5, 13))  # sequences and tokens of the batches that tell the axes of a tensor apart


class _AllSeen(Exception):
    """Ends the forward pass when every hook point has been seen."""


@torch.inference_mode()
def capture(model: nn.Module, points: Sequence[HookPoint], inputs: Mapping[str, Tensor]) -> dict[HookPoint, Tensor]:
    """Returns what the model computes at each hook point for one batch.

    Where the shape of a tensor does not say which of its axes is which (as many sequences as tokens, say), small
    batches of other sizes find it out (`axis_orders`). Of a module that runs several times in one pass, the first run
    counts.

    Args:
        model: the language model, in eval mode.
        points: distinct hook points, in any order.
        inputs: keyword arguments of the forward pass: `input_ids` (batch, context) and, for instance,
            `attention_mask`.

    Returns:
        Tensors (batch, context, width) in the model's dtype and on its device. They are exactly those of a whole
        forward pass.

    Raises:
        ValueError: a module does not exist, is never reached by the forward pass, or does not pass one vector for each
            token; or the model does not run on these inputs.

    Cost: the layers up to the deepest hook point.
    """
    batch, context = inputs["input_ids"].shape
    tensors = _first_tensors(model, points, inputs)
    found: dict[HookPoint, tuple[AxisOrder, int]] = {}
    if unclear := [point for point, x in tensors.items() if not is_unambiguous(x.shape, batch, context)]:
        found = axis_orders(model, unclear, inputs["input_ids"])
    return {
        point: to_standard_axes(x, found[point][0] if point in found else _plain_order(x), batch, context)
        for point, x in tensors.items()
    }


def measure_widths(model: nn.Module, points: Sequence[HookPoint], vocabulary_size: int) -> dict[HookPoint, int]:
    """Returns the width of the activations at each hook point, found by a few tiny batches of random token ids.

    Args:
        model: the language model, in eval mode.
        points: distinct hook points, in any order.
        vocabulary_size: token ids are drawn below this number.

    Returns:
        Numbers of values in one token's vector.

    Raises:
        ValueError: as `capture`, about the first hook point that is at fault.

    Cost: two to five forward passes over at most 65 tokens.
    """
    ids = random_ids(vocabulary_size)
    return {point: width for point, (_, width) in axis_orders(model, points, ids).items()}


def random_ids(vocabulary_size: int) -> Tensor:
    """Draws 128 token ids below a number, int64 on the CPU, always the same, for the batches of `axis_orders`."""
    return torch.randint(0, vocabulary_size, (128,), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def axis_orders(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> dict[HookPoint, tuple[AxisOrder, int]]:
    """Finds the order of the axes (`possible_axis_orders`) and the width of the activations at each hook point.

    Batches of different sizes are tried: the true order is the only one that fits all of them with the same width. A
    further batch, whose sequences are swapped, shows whether rows come in the order of the tokens.

    Args:
        model: the language model, in eval mode.
        points: distinct hook points, in any order.
        ids: token ids of any shape, which the batches are made of.

    Returns:
        The order and the width at each hook point.

    Raises:
        ValueError: as `capture`; also if the rows of a module are not in the order of the tokens.

    Cost: two to five forward passes over at most 65 tokens.
    """
    left: dict[HookPoint, dict[AxisOrder, int]] = {}
    for number, (batch, context) in enumerate(_TRIAL_SIZES):
        if number >= 2 and all(len(fits) == 1 for fits in left.values()):
            break
        inputs = {"input_ids": _trial_batch(model, ids, batch, context)}
        for point, x in _first_tensors(model, points, inputs).items():
            fits = possible_axis_orders(x.shape, batch, context)
            left[point] = {order: width for order, width in fits.items() if left.get(point, fits).get(order) == width}
            if not left[point]:
                raise ValueError(_shape_message(point, x, batch, context))
    found = {point: next(iter(fits.items())) for point, fits in left.items()}
    rows = [point for point, (order, _) in found.items() if order == "rows"]
    if rows:
        _check_row_order(model, rows, ids)
    return found


def possible_axis_orders(shape: Sequence[int], batch: int, context: int) -> dict[AxisOrder, int]:
    """Returns the orders of axes that a tensor's shape allows, each with the width that it would mean.

    | order | shape | width |
    |---|---|---|
    | batch first | (batch, context, width) or (batch, context, heads, head_dim) | width, or heads · head_dim |
    | positions first | (context, batch, width) | width |
    | heads first | (batch, heads, context, head_dim) | heads · head_dim |
    | rows | (batch · context, width) or (batch · context, heads, head_dim) | width, or heads · head_dim |

    Args:
        shape: the shape of the tensor that a module passes.
        batch: number of sequences in the batch.
        context: number of tokens in each sequence.

    Returns:
        An empty dictionary for a tensor that does not have one vector for each token; several orders where sizes
        coincide, so that other sizes must decide.

    >>> possible_axis_orders((2, 7, 32), 2, 7)
    {'batch first': 32}
    >>> possible_axis_orders((7, 7, 32), 7, 7)
    {'batch first': 32, 'positions first': 32}
    """
    shape, found = tuple(shape), {}
    if len(shape) >= 3 and shape[:2] == (batch, context):
        found["batch first"] = prod(shape[2:])
    if len(shape) == 3 and shape[:2] == (context, batch):
        found["positions first"] = shape[2]
    if len(shape) == 4 and (shape[0], shape[2]) == (batch, context):
        found["heads first"] = shape[1] * shape[3]
    if len(shape) >= 2 and shape[0] == batch * context:
        found["rows"] = prod(shape[1:])
    return found


def is_unambiguous(shape: Sequence[int], batch: int, context: int) -> bool:
    """Checks whether a shape can only be (batch, context, width) or (batch · context, width).

    (batch, context, width) could also be (context, batch, width) if there are as many sequences as tokens, unless there
    is one of each.

    Args:
        shape: the shape of the tensor that a module passes.
        batch: number of sequences in the batch.
        context: number of tokens in each sequence.

    Returns:
        True for these two shapes, except in the case above; False for all others, also for those that fit no order of
        axes.
    """
    if len(shape) == 3:
        return tuple(shape[:2]) == (batch, context) and (batch != context or batch == 1)
    return len(shape) == 2 and shape[0] == batch * context


def to_standard_axes(x: Tensor, order: AxisOrder, batch: int, context: int) -> Tensor:
    """Returns a tensor with its axes in the standard order (batch, context, width).

    Args:
        x: the tensor that a module passed.
        order: the order of its axes.
        batch: number of sequences in the batch.
        context: number of tokens in each sequence.

    Returns:
        (batch, context, width), a view where possible; heads stand one after the other in the width.
    """
    if order == "positions first":
        x = x.transpose(0, 1)
    elif order == "heads first":
        x = x.transpose(1, 2)
    return x.reshape(batch, context, -1)


def from_standard_axes(x: Tensor, order: AxisOrder, shape: Sequence[int]) -> Tensor:
    """Undoes `to_standard_axes`.

    Args:
        x: (batch, context, width).
        order: the order of the axes that the module passes.
        shape: the shape that the module passed.

    Returns:
        A tensor of `shape` with the same values, a view where possible.
    """
    if order == "positions first":
        return x.transpose(0, 1).reshape(tuple(shape))
    if order == "heads first":
        return x.unflatten(2, (shape[1], shape[3])).transpose(1, 2)
    return x.reshape(tuple(shape))


def _plain_order(x: Tensor) -> AxisOrder:
    """The order of a tensor whose shape is unambiguous."""
    return "batch first" if x.dim() == 3 else "rows"


def _trial_batch(model: nn.Module, ids: Tensor, batch: int, context: int) -> Tensor:
    """Token ids (batch, context) on the model's device: the given ones, repeated where there are too few.

    A model whose first weights lie on the disk (`device_map`) moves its tokens itself, so they stay where they are.
    """
    enough = ids.flatten().repeat(-(-batch * context // ids.numel()))[: batch * context].view(batch, context)
    first = next(model.parameters())
    return enough if first.is_meta else enough.to(first.device)


def _check_row_order(model: nn.Module, points: Sequence[HookPoint], ids: Tensor) -> None:
    """Raises ValueError unless swapping the sequences of a batch swaps their rows.

    Rows that a module has sorted otherwise, for instance by expert, hardly change.
    """
    batch, context = _TRIAL_SIZES[0]
    tokens = _trial_batch(model, ids, batch, context)
    if torch.equal(tokens, tokens.flip(0)):
        return
    straight, swapped = (_first_tensors(model, points, {"input_ids": x}) for x in (tokens, tokens.flip(0)))
    for point in points:
        x, y = (tensors[point].float().reshape(batch, context, -1) for tensors in (straight, swapped))
        if (y - x.flip(0)).norm() > 0.5 * (x - x.flip(0)).norm():
            raise ValueError(
                f"The rows at {point} are not in the order of the tokens, as where tokens are sorted by expert: choose "
                f"another module, such as the layer's whole MLP."
            )


def _shape_message(point: HookPoint, x: Tensor, batch: int, context: int) -> str:
    passed = f"{point} passes a tensor of shape {tuple(x.shape)} for {batch} sequences of {context} tokens"
    if "expert" in point.module:
        return f"{passed}: an expert sees only the tokens that are routed to it; choose the layer's whole MLP instead."
    return f"{passed}, which is not one vector of fixed width for each token: choose another module, or its other side."


def _first_tensors(
    model: nn.Module, points: Sequence[HookPoint], inputs: Mapping[str, Tensor]
) -> dict[HookPoint, Tensor]:
    """The first tensor of what each module takes or returns, with its axes as they are."""
    passed: dict[HookPoint, object] = {}
    with _hooks(model, points, passed), suppress(_AllSeen):
        _run(model, inputs)
    if missing := [str(point) for point in points if point not in passed]:
        raise ValueError(
            f"The forward pass never reached {', '.join(missing)}: choose a module that this model runs on every token."
        )
    tensors = {point: first_tensor(value) for point, value in passed.items()}
    for point, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{point} passes whole numbers ({x.dtype}), not activations: choose another site.")
    return tensors


def _run(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Runs the model without its cache of keys and values, which is not needed here and costs memory.

    Raises:
        ValueError: the model needs other inputs, such as images, sound or a target text.
    """
    known = inspect.signature(model.forward).parameters  # encoders have no such argument
    try:
        model(**inputs, **({"use_cache": False} if "use_cache" in known else {}))
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The model does not run on {' and '.join(inputs)} alone ({reason.rstrip('.')}): choose a site that comes "
            f"before it needs more, such as one in the encoder."
        ) from error


@contextmanager
def _hooks(model: nn.Module, points: Sequence[HookPoint], passed: dict[HookPoint, object]) -> Iterator[None]:
    """While open, hooks put what each module takes or returns into `passed`, and end the pass when all is there."""

    def keep(point: HookPoint, value: object) -> None:
        passed.setdefault(point, value)
        if len(passed) == len(points):
            raise _AllSeen

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
