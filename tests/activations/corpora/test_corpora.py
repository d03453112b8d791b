"""Every source gives the same documents, every rank its own, and mixtures their weights."""

import json
from itertools import islice
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.corpora.hub import HubText
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.corpora.mixture import Mixture
from atomlab.activations.tokens.tokenise import SPLITS, TokenRules, tokenise

TEXTS = [" ".join(f"w{(5 * i + j) % 60}" for j in range(3 + i % 7)) for i in range(40)]
RECORDS = [{"text": text, "source": f"s{i // 4}"} for i, text in enumerate(TEXTS)]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Corpus]:
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    (tmp_path / "t.json").write_text(json.dumps(RECORDS))
    (tmp_path / "t.txt").write_text("\n\n".join(TEXTS))
    Dataset.from_list(RECORDS).to_parquet(str(tmp_path / "t.parquet"))
    Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "files").mkdir()
    for part in range(4):
        lines = map(json.dumps, RECORDS[part * 10 : part * 10 + 10])
        (tmp_path / "files" / f"{part}.jsonl").write_text("\n".join(lines))
    local = {s: LocalText(str(tmp_path / f"t.{s}")) for s in ("jsonl", "json", "txt", "parquet")}
    return local | {
        "saved": HubText(str(tmp_path / "saved")),
        "mapped": HubText(str(tmp_path / "files"), streaming=False),
        "streamed": HubText(str(tmp_path / "files")),
    }


def test_all_sources_agree_and_ranks_share_without_overlap(sources: dict[str, Corpus]) -> None:
    for name, corpus in sources.items():
        assert [example.text for example in corpus.examples()] == TEXTS, name
        groups = {example.text: example.group for example in corpus.examples()}
        for world_size in (2, 3):
            parts = [list(corpus.stream(rank, world_size)) for rank in range(world_size)]
            assert sorted(example.text for part in parts for example in part) == sorted(TEXTS), name
            assert all(example.group == groups[example.text] for part in parts for example in part), name


def test_groups_may_come_from_a_field(tmp_path: Path, sources: dict[str, Corpus]) -> None:
    corpus = LocalText(str(tmp_path / "t.jsonl"), group_field="source", limit=8)
    assert [example.group for example in corpus.examples()] == ["s0"] * 4 + ["s1"] * 4
    with pytest.raises(ValueError, match="no field 'title' but text, source"):
        list(LocalText(str(tmp_path / "t.jsonl"), group_field="title").examples())


def test_token_ids_give_what_their_text_gives(families: dict[str, Path], tmp_path: Path, sources) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families["llama"])
    records = [{"input_ids": tokenizer(text)["input_ids"], "source": text} for text in TEXTS]
    Dataset.from_list(records).save_to_disk(str(tmp_path / "ids"))
    rules = TokenRules(context=8, fractions=(0.6, 0.2, 0.2))
    ids = HubText(str(tmp_path / "ids"), field="input_ids", group_field="source")
    Dataset.from_list([{"text": text, "source": text} for text in TEXTS]).save_to_disk(str(tmp_path / "same"))
    a, b = (
        tokenise(corpus, tokenizer, rules) for corpus in (ids, HubText(str(tmp_path / "same"), group_field="source"))
    )
    for split in SPLITS:
        assert a.splits[split].input_ids.tolist() == b.splits[split].input_ids.tolist()
    (tmp_path / "bad.jsonl").write_text('{"input_ids": ["a"]}\n')
    with pytest.raises(ValueError, match="neither text nor token ids"):
        list(LocalText(str(tmp_path / "bad.jsonl"), field="input_ids").examples())


def test_a_token_id_counts_as_four_characters_in_a_mixture(tmp_path: Path) -> None:
    """Ids of 3 tokens (12 characters) against texts of 6 characters: one of the first for two of the second."""
    (tmp_path / "ids.jsonl").write_text("\n".join(json.dumps({"ids": [4 + i, 5, 6]}) for i in range(5)))
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"w{i} w10"}) for i in range(10)))
    corpora = {
        "ids": LocalText(str(tmp_path / "ids.jsonl"), field="ids"),
        "text": LocalText(str(tmp_path / "text.jsonl")),
    }
    order = "".join(example.group[0] for example in Mixture(corpora, {"ids": 1.0, "text": 1.0}).examples())
    assert order == "itt" * 5


def test_a_mixture_keeps_its_weights_at_every_point(tmp_path: Path, sources: dict[str, Corpus]) -> None:
    corpora = {"a": sources["jsonl"], "b": sources["saved"]}
    mixed = Mixture(corpora, {"a": 3.0, "b": 1.0})
    longest, size = max(map(len, TEXTS)), {"a": 0, "b": 0}
    for example in mixed.examples():
        size[example.group[0]] += len(example.text)
        assert abs(size["a"] - 3 * size["b"]) <= 3 * longest
    assert size["a"] == sum(map(len, TEXTS))  # it ends where one ends
    shared = [{example.group for example in islice(mixed.stream(rank, 2), 5)} for rank in range(2)]
    assert not shared[0] & shared[1]
    with pytest.raises(ValueError, match="positive number"):
        Mixture(corpora, {"a": 1.0, "b": 0.0})
    with pytest.raises(ValueError, match="cannot be mixed"):
        Mixture(corpora | {"c": LocalText(str(tmp_path / "t.txt"), packed=False)}, {"a": 1, "b": 1, "c": 1})
