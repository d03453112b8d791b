"""Harvests are complete or absent, resume where they were, and are read back exactly."""

from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from safetensors.torch import load_file

from atomlab.activations.batches.order import Online
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule, RandomBatches, ShuffledBatches
from atomlab.activations.harvest import harvester as harvest_module
from atomlab.activations.harvest.harvester import ShardWriter
from atomlab.activations.harvest.shards import Shard
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import ActivationStore
from atomlab.activations.store.files import read_index
from tests.activations.modules import data_module


@pytest.fixture
def text(tmp_path: Path) -> LocalText:
    generator = torch.Generator().manual_seed(0)
    documents = [
        " ".join(f"w{i}" for i in torch.randint(0, 60, (40,), generator=generator).tolist()) for _ in range(30)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    return LocalText(str(tmp_path / "text.txt"))


def tiny_module(folder: Path, text: LocalText, cache: Path, **options) -> ActivationDataModule:
    model = LanguageModel(str(folder), dtype="float32", device="cpu")
    return data_module(
        model, text, site="resid_post", layer=1, cache_dir=str(cache), context=16, size=32, steps=50, shard_rows=100,
        batch_tokens=64, **options,
    )  # fmt: skip


def files(cache: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(cache)): f.read_bytes()
        for f in sorted(cache.rglob("*.safetensors"))
        if "moments" not in f.name
    }


def test_rows_are_the_models_activations(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    data = tiny_module(families["llama"], text, tmp_path / "cache", max_norm_ratio=None, separate_documents=False)
    data.prepare_data()
    data.setup()
    index = read_index(data.folder(text) / str(data.point) / "index.json", "shards")
    stated = (
        "name revision device code model dtype hook_point corpus tokenizer position tokens precision width rows shards"
    )
    assert set(index) == {*stated.split(), "train_norm"}
    assert index["tokenizer"]["class"] == type(data.model.tokenizer).__name__
    assert index["tokenizer"]["tokens"] == 64
    assert index["rows"] == {split: len(data.rows[split].store) for split in data.rows}
    assert all(set(entry) == {"rows", "bytes", "sha256"} for entry in index["shards"].values())
    tokens = load_file(next((tmp_path / "cache").rglob("test.tokens.safetensors")))
    ids = tokens["input_ids"].long().view(-1, 16)
    hidden = data.model.load()(input_ids=ids, output_hidden_states=True).hidden_states[2]
    expected = hidden.flatten(0, 1)[tokens["keep"]]
    rows = torch.randperm(len(expected))
    torch.testing.assert_close(data.rows["test"][rows], expected[rows], rtol=1e-5, atol=1e-5)  # other batch shapes
    x = data.rows["train"][torch.arange(len(data.rows["train"]))].double()
    torch.testing.assert_close(data.moments.second_moment, x.T @ x / len(x))
    torch.testing.assert_close(data.moments.mean, x.mean(0))


def test_one_pass_serves_many_sites_and_knows_where_rows_come_from(
    families: dict[str, Path], text: LocalText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents in one context see nothing of one another: each row is what the model gives for the row's own
    document part alone.
    """
    real, calls = harvest_module.capture, []
    monkeypatch.setattr(harvest_module, "capture", lambda *arguments: calls.append(1) or real(*arguments))
    data = tiny_module(
        families["llama"], text, tmp_path, sites=["mlp_out"], layers=[0], max_norm_ratio=None, drop_first=False
    )
    data.prepare_data()
    passes, model = len(calls), data.model.load()
    examples = list(text.examples())
    for site, layer in (("resid_post", 1), ("mlp_out", 1), ("resid_post", 0), ("mlp_out", 0)):
        other = data.at(site, layer)
        other.prepare_data()
        other.setup()
        assert len(calls) == passes
        rows = torch.arange(0, len(other.rows["test"]), 7)
        origin, contexts = other.rows["test"].origin(rows), other.rows["test"].contexts(rows, before=99, after=99)
        for i, (ids, own) in enumerate(contexts):
            seen = real(model, [other.point], {"input_ids": ids.long()[None]})[other.point][0, own]
            torch.testing.assert_close(other.rows["test"][rows[i : i + 1]][0], seen, rtol=1e-4, atol=1e-4)
            assert (int(ids[own]), own) == (int(origin.token_id[i]), int(origin.position[i]))
            words = " ".join(data.model.tokenizer.convert_ids_to_tokens(ids.tolist()))
            assert words in examples[int(origin.document[i])].text
            assert origin.group[i] == examples[int(origin.document[i])].group


def test_an_interrupted_harvest_goes_on_and_ends_the_same(
    families: dict[str, Path], text: LocalText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_module(families["llama"], text, tmp_path / "whole")
    whole.prepare_data()
    real, calls = harvest_module.capture, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(harvest_module, "capture", failing)
    broken = tiny_module(families["llama"], text, tmp_path / "broken")
    with pytest.raises(SystemExit):  # Lightning's answer to Ctrl+C
        broken.prepare_data()
    assert files(tmp_path / "broken")
    assert not list((tmp_path / "broken").rglob("index.json"))
    broken.prepare_data()
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    again = len(calls)
    tiny_module(families["llama"], text, tmp_path / "broken").prepare_data()
    assert len(calls) == again  # a second run needs no forward pass


def test_damage_is_named(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    tiny_module(families["llama"], text, tmp_path).prepare_data()
    shard = next(tmp_path.rglob("train-00001.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"truncated.*train-00001.*rm .*train-00001"):
        ActivationStore(shard.parent, "train")
    shard.write_bytes(b"x" * len(content))
    with pytest.raises(ValueError, match=r"Damaged.*train-00001"):
        ActivationStore(shard.parent, "train")
    with pytest.raises(FileNotFoundError, match="No complete harvest"):
        ActivationStore(tmp_path, "train")


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_steps_see_the_same_rows_on_any_number_of_processes_and_after_a_resume(world_size: int) -> None:
    one = [set(batch.tolist()) for batch in ShuffledBatches(103, 20, 12, seed=3)]
    ranks = [list(ShuffledBatches(103, 20, 12, seed=3, rank=r, world_size=world_size)) for r in range(world_size)]
    assert [set(torch.cat(parts).tolist()) for parts in zip(*ranks, strict=True)] == one
    assert all(len(batch) == 20 for batch in one)
    assert not set.intersection(one[0], one[4])  # one epoch has five steps, without replacement
    resumed = list(ShuffledBatches(103, 20, 12, start=7, seed=3))
    assert [set(batch.tolist()) for batch in resumed] == one[7:]
    drawn = [torch.cat(list(RandomBatches(103, 20, rank=r, world_size=world_size))) for r in range(world_size)]
    assert torch.cat(drawn).sort().values.tolist() == list(range(103))
    alone = torch.cat(list(RandomBatches(103, 20)))
    assert {int(i) for rank in drawn for i in rank[: 40 // world_size]} == set(alone[:40].tolist())


def test_batches_that_cannot_be_dealt_out_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of the 3"):
        ShuffledBatches(100, 20, 5, world_size=3)
    with pytest.raises(ValueError, match="more than the 10"):
        ShuffledBatches(10, 20, 5)


def test_the_model_waits_for_a_slow_disk(tmp_path: Path) -> None:
    """While a file is being written no more than four batches wait in memory, and none is lost."""
    point, stuck, given = HookPoint.parse("a.output"), Event(), []
    shards = [Shard(f"train-{i:05d}.safetensors", "train", ((0, 1),), 2) for i in range(12)]
    written: list[str] = []

    def slowly(name: str, _: dict) -> None:
        stuck.wait()
        written.append(name)

    writer = ShardWriter(tmp_path, {}, slowly)

    def compute() -> None:
        for number, shard in enumerate(shards):
            writer.put(shard, {point: torch.full((2, 3), float(number))})
            given.append(number)

    model = Thread(target=compute)
    model.start()
    model.join(timeout=0.5)
    assert model.is_alive()
    assert len(given) == 5  # one in the writer's hands, four in the queue
    stuck.set()
    model.join()
    writer.close()
    assert written == [f"a.output/{shard.name}" for shard in shards]
    for number, name in enumerate(written):
        assert load_file(tmp_path / name)["activations"].unique().tolist() == [number]


def test_a_checkpoint_of_another_order_is_refused(families: dict[str, Path], text: LocalText, tmp_path: Path) -> None:
    cached = tiny_module(families["llama"], text, tmp_path)
    online = tiny_module(families["llama"], text, tmp_path, online=Online(64))
    for data in (cached, online):
        data.prepare_data()
        data.setup()
    same = {"seed": 0, "batch_size": 32, "rows": len(cached.rows["train"])}
    blocks = {"block_rows": 64, "window_rows": 262_144}
    cached.load_state_dict(same | blocks)
    online.load_state_dict(same | {"buffer_rows": 64, "processes": 1})
    with pytest.raises(ValueError, match="seed=1, and now it is 0"):
        cached.load_state_dict(same | blocks | {"seed": 1})
    with pytest.raises(ValueError, match="processes=2, and now it is 1"):
        online.load_state_dict(same | {"buffer_rows": 64, "processes": 2})
