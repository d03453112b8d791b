"""Replaces what a model computes at a hook point while it runs: the counterpart of `capture`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from atomlab.activations.model.capture import AxisOrder, from_standard_axes, to_standard_axes
from atomlab.activations.model.sites import HookPoint, find_module, first_tensor

Edit = Callable[[Tensor], Tensor]


@contextmanager
def replaced(model: nn.Module, point: HookPoint, edit: Edit | None) -> Iterator[None]:
    """Replaces the activation at a hook point in every forward pass inside the block.

    Modules may pass the activation alone or as the first part of a tuple; the other parts of a tuple stay as they are.

    Args:
        model: the language model.
        point: of the activation.
        edit: function from the activation, in the model's own shape and dtype, to what takes its place; None leaves it
            unchanged.

    Yields:
        Nothing. The hook is removed at the end of the block, also after an error in it.

    Raises:
        ValueError: the model has no such module.
    """
    if edit is None:
        yield
        return
    module = find_module(model, point)

    def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (edit(first_tensor(args)), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        return args, kwargs | {name: edit(first_tensor(kwargs[name]))}

    def after(_module: nn.Module, _args: tuple, output: object) -> object:
        changed = edit(first_tensor(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    if point.side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def edited_at(value: Tensor, order: AxisOrder, where: Tensor, edit: Edit) -> Tensor:
    """Replaces the vectors of some tokens in a tensor that a module passes.

    Args:
        value: the tensor, in the model's own shape and dtype.
        order: the order of its axes (`axis_orders`).
        where: (batch, context) bool, the tokens whose vectors are replaced.
        edit: function from their vectors, (n, width) in the dtype and on the device of `value`, to what takes their
            place, (n, width) of any dtype and on any device.

    Returns:
        A new tensor like `value`; the vectors of all other tokens are the same to the bit.
    """
    x = to_standard_axes(value, order, *where.shape).clone()
    chosen = where.to(x.device)
    x[chosen] = edit(x[chosen]).to(x)
    return from_standard_axes(x, order, value.shape)
