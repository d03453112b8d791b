"""Block shuffle and online buffer: permutations, ranks, and going on exactly."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atomlab.activations.batches.background import Background
from atomlab.activations.batches.online import OnlineBatches, StreamPosition
from atomlab.activations.batches.order import Online
from atomlab.activations.batches.shuffle import ShuffledBatches


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(20, 400),
    batch=st.integers(1, 20),
    block=st.integers(1, 50),
    window=st.integers(1, 500),
    start=st.integers(0, 60),
)
def test_each_epoch_is_a_permutation_and_any_step_can_be_the_first(
    rows: int, batch: int, block: int, window: int, start: int
) -> None:
    options = {"seed": 5, "block_rows": block, "window_rows": window}
    whole = list(ShuffledBatches(rows, batch, 60, **options))
    assert len(whole) == 60
    per_epoch = rows // batch
    for epoch in range(60 // per_epoch):
        seen = torch.cat(whole[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert len(seen.unique()) == len(seen) == per_epoch * batch
    resumed = list(ShuffledBatches(rows, batch, 60, start=start, **options))
    assert all(torch.equal(a, b) for a, b in zip(resumed, whole[start:], strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_rising_rows_are_dealt_out_of_the_whole_batch_in_turn(world_size: int) -> None:
    """Not reported: each process put its own rows in order, and so gave them the noise of other vectors."""
    options = {"seed": 5, "block_rows": 7, "window_rows": 30}
    dealt = [
        ShuffledBatches(100, 12, 20, rank=rank, world_size=world_size, rising=True, **options)
        for rank in range(world_size)
    ]
    for whole, *parts in zip(ShuffledBatches(100, 12, 20, **options), *dealt, strict=True):
        together = torch.empty_like(whole)
        for rank, part in enumerate(parts):
            together[rank::world_size] = part
        assert torch.equal(together, whole.sort().values)


def test_one_window_is_a_full_shuffle_and_more_leave_the_stated_neighbourhood() -> None:
    """In a full shuffle neighbours are as far apart as independent draws: a third of the set on average."""
    rows, batch, block, window = 20_000, 500, 10, 2_000
    full = torch.cat(list(ShuffledBatches(rows, batch, 40, block_rows=block, window_rows=rows)))
    distance = full.double().diff().abs().mean() / rows
    assert abs(distance - 1 / 3) < 4 * math.sqrt(1 / 18 / rows)
    mates = []
    for numbers in ShuffledBatches(rows, batch, 40, block_rows=block, window_rows=window):
        blocks = numbers // block
        mates.append((blocks[:, None] == blocks[None]).sum(1).double().mean() - 1)
    expected = batch * block / window  # per row, without itself, up to boundaries of batches and windows
    assert abs(torch.stack(mates).mean() - expected * (block - 1) / block) < 0.2


def rows_from(place: StreamPosition) -> Iterator[tuple[Tensor, StreamPosition]]:
    """A model of uneven forward passes, of which each row is known by its number."""
    while True:
        size = 5 + place.passes % 7
        yield (
            torch.full((size, 1), float(place.passes)) + torch.arange(size)[:, None] / 16,
            StreamPosition(0, 0, place.passes + 1),
        )
        place = StreamPosition(0, 0, place.passes + 1)


def online(steps: int, state=None, rank: int = 0) -> OnlineBatches:
    return OnlineBatches(rows_from, Online(64, 2), 8, steps, seed=1, rank=rank, state=state)


def test_the_online_buffer_goes_on_bit_for_bit_and_loses_no_row() -> None:
    whole = list(online(100))
    seen = torch.cat(whole).flatten()
    assert len(seen.unique()) == len(seen)  # no row twice
    for stop in (1, 4, 5, 37, 99):
        first = online(100)
        batches = iter(first)
        for _ in range(stop):
            next(batches)
        state = first.state()
        batches.close()  # type: ignore[attr-defined]
        rest = list(online(100, state))
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[stop:], strict=True))
    assert not torch.equal(torch.cat(list(online(5, rank=1))), torch.cat(list(online(5))))
    with pytest.raises(ValueError, match="buffer_rows=8"):
        OnlineBatches(rows_from, Online(8), 8, 1, seed=0, rank=0)


def test_a_thread_runs_ahead_only_as_far_as_it_may_and_passes_errors_on() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i
        raise OSError("the end")

    items = iter(Background(source(), ahead=2))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert len(made) <= 3 + 2 + 1
    with pytest.raises(OSError, match="the end"):
        list(items)
