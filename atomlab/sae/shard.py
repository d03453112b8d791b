"""Which latents of a TSAE this process holds, and the exchanges that make shards compute what the whole computes."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.groups import ALONE, Axis, Groups


class _Total(torch.autograd.Function):
    """The sum over processes, whose gradient goes to each process's own summand unchanged.

    Each process computes the same loss from the sum, so that the gradient of the loss by the sum is known to all of them and
    nothing has to be exchanged in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, axis: Axis) -> Tensor:
        return axis.sum(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Rows(torch.autograd.Function):
    """Rows of a matrix that is sharded over processes, in all of them; gradients of all go back to the row's holder."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, chosen: Tensor, held: Tensor, axis: Axis) -> Tensor:
        ctx.save_for_backward(chosen, held)
        ctx.axis, ctx.count = axis, len(own)
        rows = own.new_zeros(len(chosen), own.shape[1])
        rows[held] = own[chosen[held]]
        return axis.sum(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        chosen, held = ctx.saved_tensors
        gradient = ctx.axis.sum(gradients[0])
        own = gradient.new_zeros(ctx.count, gradient.shape[1])
        return own.index_add_(0, chosen[held], gradient[held]), None, None, None


@final
@dataclass(frozen=True)
class Shard:
    """The latents of a TSAE that this process holds: all, or neighbouring ones, split as `torch.chunk` splits.

    Attributes:
        d_sae: number of latents of the whole TSAE.
        groups: the processes of the run.

    Raises:
        ValueError: a process would hold no latent.
    """

    d_sae: int
    groups: Groups = ALONE

    def __post_init__(self) -> None:
        count = self.groups.latents.size
        if count > 1 and (count - 1) * -(-self.d_sae // count) >= self.d_sae:
            raise ValueError(
                f"d_sae={self.d_sae} latents leave one of trainer.strategy.latents={count} processes without any: use "
                "fewer processes or a larger sae.expansion."
            )

    @property
    def first(self) -> int:
        """Number of the first latent that this process holds."""
        latents = self.groups.latents
        return latents.rank * -(-self.d_sae // latents.size)

    @property
    def size(self) -> int:
        """How many latents this process holds."""
        return min(-(-self.d_sae // self.groups.latents.size), self.d_sae - self.first)

    @property
    def is_whole(self) -> bool:
        """Whether this process holds all latents."""
        return self.groups.latents.size == 1

    def among(self, groups: Groups) -> "Shard":
        """Returns the same shard with other groups, such as those that are connected by now."""
        return replace(self, groups=groups)

    def own(self, whole: Float[Tensor, "d_sae *rest"]) -> Tensor:
        """Takes the part of this process, as a view, out of a tensor whose first dimension is all latents."""
        return whole[self.first : self.first + self.size]

    def total(self, part: Tensor) -> Tensor:
        """Adds the parts of all shards, as partial reconstructions or numbers of active latents are.

        Args:
            part: of this process, of the same shape in all processes that share the dictionary.

        Returns:
            The sum. Its gradient flows to the part of this process unchanged, which is right where every process computes
            the same loss from the sum.

        Communication: `part`, once, in the forward pass only; none where this process holds all latents.
        """
        return part if self.is_whole else _Total.apply(part, self.groups.latents)

    def rows(self, own: Float[Tensor, "own d_in"], chosen: Int64[Tensor, " rows"]) -> Float[Tensor, "rows d_in"]:
        """Brings rows of a matrix, one row a latent, to all processes that share the dictionary.

        Args:
            own: the rows of this process, shape `(own, d_in)`.
            chosen: numbers of the wanted latents among all, the same in all processes; numbers may repeat.

        Returns:
            The rows, shape `(rows, d_in)`. Gradients that any process has for a row are added for its holder, so the loss of
            each process should be its own part of one sum.

        Communication: the rows, once in the forward and once in the backward pass.
        """
        if self.is_whole:
            return own[chosen]
        mine = chosen - self.first
        return _Rows.apply(own, mine, ((mine >= 0) & (mine < len(own))).nonzero().squeeze(1), self.groups.latents)
