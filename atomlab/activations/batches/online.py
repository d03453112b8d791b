"""Training vectors straight from the language model, for corpora larger than the disk, through a shuffle buffer."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.batches.background import Background
from atomlab.activations.batches.order import Online
from atomlab.activations.batches.shuffle import generator
from atomlab.activations.corpora.corpus import Corpus, Example
from atomlab.activations.model.capture import capture, not_finite
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.tokens.sequences import Batch, Sequences, batch, equal_lengths, sample

_EXAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class StreamPosition:
    """How far a stream of forward passes has come.

    Attributes:
        epoch: of the corpus, counted from 0.
        examples: of this epoch whose forward passes are all done.
        passes: forward passes done of the next group of examples.
    """

    epoch: int = 0
    examples: int = 0
    passes: int = 0


def forward_passes(
    corpus: Corpus,
    lay_out: Callable[[list[Example]], Sequences],
    position: StreamPosition,
    *,
    batch_tokens: int,
    seed: int,
    rank: int,
    world_size: int,
) -> Iterator[tuple[Batch, StreamPosition]]:
    """Cuts this process's share of a corpus into forward passes, epoch after epoch without end.

    Args:
        corpus: whose examples are read; each process reads other ones.
        lay_out: turns examples into token sequences, whose `document` counts these examples from 0.
        position: where to go on.
        batch_tokens: tokens of a forward pass, at most.
        seed: of the order of the sequences within a group of examples.
        rank: number of this process, from 0.
        world_size: number of processes.

    Yields:
        A forward pass, whose `document` counts the examples of this process from 0, and the position after it.

    Raises:
        ValueError: an epoch gives this process no forward pass.
    """
    while True:
        found = position.examples > 0
        examples = islice(corpus.stream(rank, world_size), position.examples, None)
        while some := list(islice(examples, _EXAMPLES_AT_ONCE)):
            sequences = sample(lay_out(some), None, seed)
            for number, (start, stop) in enumerate(equal_lengths(sequences, batch_tokens)):
                if number >= position.passes:
                    found = True
                    position = StreamPosition(position.epoch, position.examples, number + 1)
                    made = batch(sequences, start, stop)
                    yield replace(made, document=made.document + position.examples), position
            position = StreamPosition(position.epoch, position.examples + len(some))
        if not found:
            raise ValueError(f"The corpus gives process {rank} of {world_size} no full context: give more text.")
        position = StreamPosition(position.epoch + 1)


@final
class OnlineBatches:
    """Makes training batches out of a shuffle buffer.

    Whenever less than half of the buffer is left, whole forward passes are added until it is full, and all of it is
    shuffled anew. The order depends on the seed, on the process, and on how many shuffles there were. The state holds the
    buffer itself and the position of the stream, so that a resumed run goes on bit for bit.

    Args:
        rows: gives the vectors of each forward pass from a position on, with the position after the pass.
        online: sizes of the buffer.
        batch_size: vectors of a batch of this process.
        steps: number of batches in the whole run, also when it is resumed.
        seed: of the shuffles.
        rank: number of this process, from 0.
        state: the state of an earlier run to go on from; None starts anew.
        pinned: whether batches lie in memory that a GPU copies from without the CPU.

    Attributes:
        waited: seconds that steps have waited for vectors.

    Raises:
        ValueError: a buffer of less than two batches.
    """

    def __init__(
        self,
        rows: Callable[[StreamPosition], Iterable[tuple[Tensor, StreamPosition]]],
        online: Online,
        batch_size: int,
        steps: int,
        *,
        seed: int,
        rank: int,
        state: dict[str, Any] | None = None,
        pinned: bool = False,
    ) -> None:
        if online.buffer_rows < 2 * batch_size:
            raise ValueError(
                f"activations.batches.online.buffer_rows={online.buffer_rows} should be at least twice the batch of "
                f"{batch_size} vectors."
            )
        self.rows, self.online, self.batch_size, self.steps = rows, online, batch_size, steps
        self.seed, self.rank, self.pinned = seed, rank, pinned
        self.buffer: Tensor | None = None if state is None else state["buffer"]
        self.step, self.shuffles, self.position = (
            (0, 0, StreamPosition())
            if state is None
            else (state["step"], state["shuffles"], StreamPosition(*state["position"]))
        )
        self.waited = 0.0

    def __len__(self) -> int:
        return self.steps  # the whole run, also when resumed

    def state(self) -> dict[str, Any]:
        """Returns the state after the last batch that was given out: the rest of the buffer, and what its filling depends on."""
        position = [self.position.epoch, self.position.examples, self.position.passes]
        left = None if self.buffer is None else self.buffer.clone()  # a view would be saved with all it is a view of
        return {"buffer": left, "step": self.step, "shuffles": self.shuffles, "position": position}

    def __iter__(self) -> Iterator[Tensor]:
        source = Background(self.rows(self.position), ahead=self.online.ahead)
        passes = iter(source)
        while self.step < self.steps:
            if self.buffer is None or len(self.buffer) < max(self.online.buffer_rows // 2, self.batch_size):
                self._fill(passes)
                self.waited = source.waited
            assert self.buffer is not None
            taken, self.buffer = self.buffer[: self.batch_size], self.buffer[self.batch_size :]
            self.step += 1
            yield taken.float().pin_memory() if self.pinned else taken.float()

    def _fill(self, passes: Iterator[tuple[Tensor, StreamPosition]]) -> None:
        parts = [] if self.buffer is None else [self.buffer]
        size = sum(map(len, parts))
        while size < self.online.buffer_rows:
            rows, self.position = next(passes)
            parts.append(rows)
            size += len(rows)
        order = torch.randperm(size, generator=generator(self.seed, self.rank, self.shuffles))
        self.buffer = torch.cat(parts)[order.to(parts[0].device)]
        self.shuffles += 1


def kept_rows(
    model: LanguageModel,
    point: HookPoint,
    passes: Iterable[tuple[Batch, StreamPosition]],
    limit: float,
    corpus: str = "the corpus",
) -> Iterator[tuple[Tensor, StreamPosition]]:
    """Runs forward passes, and keeps what they give at a hook point.

    Args:
        model: the language model, which is loaded here.
        point: the hook point.
        passes: forward passes, each with the position after it.
        limit: vectors whose Euclidean norm is above it are left out.
        corpus: what the documents of the passes are counted in, for the message.

    Yields:
        (rows, d_in) vectors of a pass, on the CPU in the model's dtype, and the position after the pass.

    Raises:
        ValueError: activations that are NaN or infinite. The message names hook point and document.
    """
    loaded = model.load([point])
    for made, position in passes:
        inputs = {name: tensor.to(model.device) for name, tensor in made.inputs.items()}
        x = capture(loaded, [point], inputs)[point].cpu().flatten(0, 1).index_select(0, made.kept)
        norms = x.float().norm(dim=1)
        if not (finite := norms.isfinite()).all():
            raise not_finite(point, int(made.document[~finite][0]), corpus)
        yield x[norms <= limit], position
