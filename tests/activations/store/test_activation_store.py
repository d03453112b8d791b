"""Rows are read back exactly whatever their order, and each knows the token that it comes from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atomlab.activations.store.activation_store import ActivationStore, Rows
from atomlab.activations.store.files import INDEX, shard_name, write_index, write_tensors
from atomlab.activations.store.row_origins import Layout, Origins, write_sequences
from atomlab.activations.tokens.sequences import Sequences
from atomlab.activations.tokens.tokenise import SPLITS, Tokens

SIZES = (5, 1, 9, 3)  # rows of the shards of the train split
WIDTH = 6
# Two sequences. The first holds documents 0 and 1, whose positions start anew; the second document 2.
SEQUENCES = Sequences(
    input_ids=torch.arange(100, 130, dtype=torch.int32),
    offsets=torch.tensor([0, 16, 30]),
    keep=torch.tensor([number % 5 != 0 for number in range(30)]),
    position=torch.tensor([*range(10), *range(6), *range(14)], dtype=torch.int32),
    document=torch.tensor([0] * 10 + [1] * 6 + [2] * 14, dtype=torch.int32),
)
GROUPS = ["first", "second", "first", "never used"]


def harvest(folder: Path, sizes: tuple[int, ...] = SIZES) -> dict[str, Tensor]:
    """Writes a harvest of one hook point, and returns the rows of each split."""
    write_sequences(folder, Tokens(dict.fromkeys(SPLITS, SEQUENCES), GROUPS), Layout(100, 64))
    written, shards = {}, {}
    for seed, split in enumerate(SPLITS):
        x = torch.randn(sum(sizes), WIDTH, generator=torch.Generator().manual_seed(seed)).bfloat16()
        written[split] = x.float()
        for number, part in enumerate(x.split(list(sizes))):
            name = shard_name(split, number)
            tensors = {"activations": part, "norms": part.float().norm(dim=1)}
            shards[name] = {"rows": len(part)} | write_tensors(folder / "point" / name, tensors)
    write_index(folder / "point" / INDEX, {"shards": shards})
    return written


@pytest.mark.parametrize("seed", range(20))
def test_rows_come_back_in_the_order_asked_for_and_as_often(tmp_path: Path, seed: int) -> None:
    """Rising numbers take another path through the code than falling ones; some shards are not touched."""
    written = harvest(tmp_path)["validation"]
    store = ActivationStore(tmp_path / "point", "validation")
    assert (len(store), store.width, store.dtype) == (sum(SIZES), WIDTH, torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, len(store), (1 + seed,), generator=generator)
    for asked in (numbers, numbers.sort().values, numbers.sort(descending=True).values):
        assert torch.equal(store[asked], written[asked])
    assert torch.equal(store.norms, written.norm(dim=1))
    selected = torch.randperm(len(store), generator=generator)[:11]
    rows, index = Rows(store, selected), torch.randint(0, 11, (7,), generator=generator)
    assert rows.shape == (11, WIDTH)
    assert torch.equal(rows[index], written[selected[index]])


def test_no_rows_are_asked_for(tmp_path: Path) -> None:
    harvest(tmp_path)
    assert ActivationStore(tmp_path / "point", "test")[torch.empty(0, dtype=torch.int64)].shape == (0, WIDTH)


def test_a_row_is_its_kept_token(tmp_path: Path) -> None:
    """Row r is the token number r among those that are kept."""
    harvest(tmp_path)
    origins = Origins.read(tmp_path, "train")
    tokens = [number for number in range(30) if number % 5 != 0]
    assert len(origins) == len(tokens)
    asked = torch.tensor([17, 0, 17, 23, 6])
    found = origins[asked]
    expected = [tokens[number] for number in asked]
    assert found.token_id.tolist() == [100 + token for token in expected]
    assert found.position.tolist() == [int(SEQUENCES.position[token]) for token in expected]
    assert found.document.tolist() == [int(SEQUENCES.document[token]) for token in expected]
    assert found.group == [GROUPS[int(SEQUENCES.document[token])] for token in expected]
    assert origins.all_groups == {"first", "second"}


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 2), (99, 99)])
def test_a_context_ends_where_the_model_saw_no_further(before: int, after: int) -> None:
    """At both ends of the sequence, and of a packed document whose positions start anew. Compared with a search by hand."""
    origins = Origins(replace(SEQUENCES, keep=torch.ones(30, dtype=torch.bool)), GROUPS)
    for token, (ids, own) in enumerate(origins.contexts(torch.arange(30), before, after)):
        visible = [other for other in range(30) if SEQUENCES.document[other] == SEQUENCES.document[token]]
        expected = [100 + other for other in visible if token - before <= other <= token + after]
        assert ids.tolist() == expected
        assert int(ids[own]) == 100 + token


def test_documents_that_see_one_another_share_a_context() -> None:
    """Positions run on through the sequence, as in models that cannot keep documents apart."""
    position = torch.tensor([*range(16), *range(14)], dtype=torch.int32)
    origins = Origins(replace(SEQUENCES, position=position, keep=torch.ones(30, dtype=torch.bool)), GROUPS)
    ((ids, own),) = origins.contexts(torch.tensor([12]), 99, 99)
    assert (ids.tolist(), own) == (list(range(100, 116)), 12)
