"""Which axes of a tensor are the sequences and the tokens: language models pass them in four arrangements."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor

Axes = Literal["sequences", "positions first", "heads first", "rows"]


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
