"""An activation that is not finite names its hook point and the document that it comes from."""

from pathlib import Path

import pytest
import torch

from atomlab.activations.harvest.harvester import ShardWriter
from atomlab.activations.harvest.shards import document_of, plan
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.tokens.sequences import Sequences


def sequences() -> Sequences:
    """Six sequences of four tokens, of documents 10 to 15; the first token of each is not kept."""
    return Sequences(
        input_ids=torch.arange(24, dtype=torch.int32),
        offsets=torch.arange(7) * 4,
        keep=torch.tensor([False, True, True, True] * 6),
        position=torch.arange(4, dtype=torch.int32).repeat(6),
        document=torch.arange(10, 16, dtype=torch.int32).repeat_interleave(4),
    )


def test_every_row_of_every_shard_belongs_to_its_document() -> None:
    found = sequences()
    shards = plan("train", found, shard_rows=6, batch_tokens=8)
    assert len(shards) == 3
    documents = [document_of(shard, found, row) for shard in shards for row in range(shard.rows)]
    assert documents == [10 + number // 3 for number in range(18)]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_document_is_named(tmp_path: Path, value: float) -> None:
    shard = plan("train", sequences(), shard_rows=6, batch_tokens=8)[1]
    x = torch.ones(6, 3)
    x[4, 1] = value  # the second of the shard's two documents
    writer = ShardWriter(tmp_path, {"train": sequences()}, lambda name, entry: None)
    writer.put(shard, {HookPoint("model.layers.1", "output"): x})
    with pytest.raises(
        ValueError, match=r"infinite activations at model\.layers\.1\.output in document 13 of the corpus"
    ):
        writer.close()
    assert not list(tmp_path.rglob("*.safetensors"))
