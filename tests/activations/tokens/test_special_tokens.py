"""What a tokenizer puts around a text is found on every kind of tokenizer, and is never there twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, CanineTokenizer, GPT2Config, PreTrainedTokenizerFast

from atomlab.activations.corpora.corpus import Example
from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.tokens.sequences import Frame
from atomlab.activations.tokens.special_tokens import frame, special_ids
from atomlab.activations.tokens.tokenise import SPLITS, TokenRules, Tokens, encode, tokenise
from tests import tiny

SPECIAL = {"<s>": 0, "</s>": 1, "<pad>": 2}
RULES = TokenRules(context=6, fractions=(0.6, 0.2, 0.2), drop_first=False)
DNA = SPECIAL | {letter: 3 + i for i, letter in enumerate("ACGT")}
BYTES = SPECIAL | {letter: 3 + i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
PIECES = SPECIAL | {"[UNK]": 3, "[unused1]": 4, "##s": 5, "gene": 6}
# where the special tokens go -> prefix, suffix, separator
TEMPLATES = {
    "<s> $A": ((0,), (), (1,)),
    "$A </s>": ((), (1,), ()),
    "<s> $A </s>": ((0,), (1,), ()),
    "<s> <s> $A </s> </s>": ((0, 0), (1, 1), ()),
    "$A": ((), (), (1,)),
}


def bare(kind: str) -> Tokenizer:
    if kind == "DNA":  # knows no other letter, and has no token for what it does not know
        return Tokenizer(models.BPE(vocab=DNA, merges=[]))
    if kind == "bytes":
        built = Tokenizer(models.BPE(vocab=BYTES, merges=[]))
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        built.decoder = decoders.ByteLevel()
        return built
    if kind == "pieces":
        built = Tokenizer(models.WordPiece(vocab=PIECES, unk_token="[UNK]"))
        built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return built
    words = ["hello", "world"] if kind == "lower case" else ["Hello", "World"]
    built = Tokenizer(models.WordLevel(SPECIAL | {word: 3 + i for i, word in enumerate(words)}, unk_token="<s>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind == "lower case":
        built.normalizer = normalizers.Lowercase()
    return built


def wrapped(built: Tokenizer, template: str = "<s> $A", **options: Any) -> PreTrainedTokenizerFast:
    built.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | options
    return PreTrainedTokenizerFast(tokenizer_object=built, **named)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["DNA", "bytes", "pieces", "lower case", "unknown is BOS"])
def test_the_frame_of_every_kind(kind: str, template: str) -> None:
    """faults.md C4: measured on the letter "a", a DNA vocabulary had BOS at the end."""
    assert frame(wrapped(bare(kind), template)) == Frame(*TEMPLATES[template])


def test_a_model_without_its_tokenizer_is_told_what_is_missing(tmp_path: Path) -> None:
    """Transformers gives a folder with configuration and weights alone a tokenizer that knows no word."""
    GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"files are missing or .* \(tokenizer.json and tokenizer_config.json\)"):
        frame(tokenizer)


def test_tokenizers_without_a_fast_version() -> None:
    """faults.md C4: "zip() argument 2 is shorter than argument 1". Offsets are asked for where they are needed only."""
    for tokenizer, expected in (
        (ByT5Tokenizer(), Frame((), (1,), ())),
        (CanineTokenizer(), Frame((0xE000,), (0xE001,), ())),
    ):
        assert not tokenizer.is_fast
        assert frame(tokenizer) == expected
        for position, wanted in (("all", None), ("last", 4)):
            (document,) = encode([Example("hello", "g")], tokenizer, position)
            assert document.wanted == wanted
            assert document.tokens.tolist() == tokenizer("hello", add_special_tokens=False)["input_ids"]
        with pytest.raises(ValueError, match=f"last_subject needs .*{type(tokenizer).__name__} has no fast version"):
            list(encode([Example("hello", "g", subject=(0, 2))], tokenizer, "last_subject"))


def test_a_slow_tokenizer_packs_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n\n".join(f"number {i}" for i in range(40)))
    tokenizer = ByT5Tokenizer()
    splits = tokenise(LocalText(str(tmp_path / "t.txt")), tokenizer, RULES).splits
    kept = torch.cat([s.input_ids[s.keep] for s in splits.values()])
    assert set(tokenizer.decode(kept.tolist())) <= set("number 0123456789")


def test_every_special_token_is_left_out(tmp_path: Path) -> None:
    """faults.md A9: chat markers stayed (`AddedToken(special=True)`), as does a token that is only in the template."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([AddedToken("<|user|>", special=True), AddedToken("<word>", special=False)])
    user, word = tokenizer.convert_tokens_to_ids(["<|user|>", "<word>"])
    assert special_ids(tokenizer) == {0, 1, 2, 3, user}
    (tmp_path / "t.txt").write_text("\n\n".join(f"<|user|> w{i} <word> w{i}" for i in range(40)))
    splits = tokenise(LocalText(str(tmp_path / "t.txt")), tokenizer, RULES).splits
    everything = torch.cat([s.input_ids for s in splits.values()])
    kept = torch.cat([s.input_ids[s.keep] for s in splits.values()])
    assert user in everything
    assert user not in kept
    assert word in kept
    undeclared = PreTrainedTokenizerFast(tokenizer_object=wrapped(bare("lower case")).backend_tokenizer)
    assert special_ids(undeclared) >= {0}


def splits_of(
    rows: list[dict[str, Any]], folder: Path, tokenizer: Any, name: str
) -> dict[str, tuple[list[int], list[bool]]]:
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = LocalText(str(folder / f"{name}.jsonl"), field="ids", group_field="group")
    tokens: Tokens = tokenise(corpus, tokenizer, RULES)
    assert tokens.bad_records.count == 0
    return {split: (tokens.splits[split].input_ids.tolist(), tokens.splits[split].keep.tolist()) for split in SPLITS}


@pytest.mark.parametrize("template", [*TEMPLATES])
def test_token_ids_are_what_their_text_is_however_they_are_framed_and_padded(template: str, tmp_path: Path) -> None:
    """faults.md A10: a second BOS, and padding read as text."""
    tokenizer = wrapped(bare("bytes"), template)
    texts = [f"text {i} {'x' * (i % 9)}" for i in range(16)]
    bare_ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    full = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, full))
    fill = [[2] * (longest - len(row)) for row in full]
    mask = [[0] * len(pad) for pad in fill], [[1] * len(row) for row in full]
    variants: dict[str, list[dict[str, Any]]] = {
        "bare": [{"ids": row} for row in bare_ids],
        "framed": [{"ids": row} for row in full],
        "ended": [{"ids": [*row, 1]} for row in bare_ids],
        "padded left": [{"ids": pad + row} for pad, row in zip(fill, full, strict=True)],
        "padded right": [{"ids": row + pad} for pad, row in zip(fill, full, strict=True)],
        "masked left": [
            {"ids": [9] * len(out) + row, "attention_mask": out + on} for out, on, row in zip(*mask, full, strict=True)
        ],
        "masked right": [
            {"ids": row + [9] * len(out), "attention_mask": on + out} for out, on, row in zip(*mask, full, strict=True)
        ],
        "masked within": [
            {"ids": [*row[:3], 9, 9, *row[3:]], "attention_mask": [1, 1, 1, 0, 0, *on[3:]]}
            for on, row in zip(mask[1], full, strict=True)
        ],
        "masked by null": [{"ids": row, "attention_mask": None} for row in full],
    }
    found = {
        name: splits_of(
            [row | {"group": text} for row, text in zip(rows, texts, strict=True)], tmp_path, tokenizer, name
        )
        for name, rows in variants.items()
    }
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text, "group": text}) for text in texts))
    from_text = tokenise(LocalText(str(tmp_path / "text.jsonl"), group_field="group"), tokenizer, RULES).splits
    expected = {split: (from_text[split].input_ids.tolist(), from_text[split].keep.tolist()) for split in SPLITS}
    for name, variant in found.items():
        assert variant == expected, name


def test_text_that_holds_its_frame_already_is_not_framed_twice(tmp_path: Path) -> None:
    """The next case of A10: text that was written with a chat template starts with BOS in letters."""
    tokenizer = tiny.tokenizer()
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": f"<s> w{i} w{i} </s>"}) for i in range(30)))
    corpus = LocalText(str(tmp_path / "t.jsonl"), packed=False)
    for sequences in tokenise(corpus, tokenizer, RULES).splits.values():
        rows = sequences.input_ids.view(-1, 3).tolist()
        assert all(row[0] == 1 and row[1] == row[2] > 3 for row in rows)
    facts = [json.dumps({"prompt": f"<s> w{i} w9", "subject": f"w{i}"}) for i in range(10, 40)]
    (tmp_path / "f.jsonl").write_text("\n".join(facts))
    for sequences in tokenise(CounterFact(str(tmp_path / "f.jsonl")), tokenizer, RULES).splits.values():
        kept = tokenizer.convert_ids_to_tokens(sequences.input_ids[sequences.keep].tolist())
        assert all(token not in ("<s>", "w9") for token in kept)


def test_padding_that_means_something_else_stays() -> None:
    """A padding token that is EOS: in front, it may be what the text starts with; unknown words are no padding."""
    tokenizer = wrapped(bare("bytes"), "$A", pad_token="</s>")
    (document,) = encode([Example("", "g", input_ids=[1, 1, 9, 8, 1, 1])], tokenizer, "all")
    assert document.tokens.tolist() == [1, 1, 9, 8]  # packing adds the end itself
    unknown = wrapped(bare("pieces"), "$A", pad_token="[UNK]", unk_token="[UNK]")
    (document,) = encode([Example("", "g", input_ids=[3, 6, 3])], unknown, "all")
    assert document.tokens.tolist() == [3, 6, 3]
    assert not list(encode([Example("", "g", input_ids=[2, 2])], wrapped(bare("bytes")), "all"))  # nothing but padding


def test_a_subject_that_no_token_holds_is_a_bad_record(tmp_path: Path) -> None:
    """A tokenizer that drops what it does not know: max() of nothing."""
    records = [{"prompt": f"{'ACGT' * (1 + i // 4)}{'ACGT'[i % 4]}", "subject": "A"} for i in range(200)]
    records[5] = {"prompt": "ACN", "subject": "N"}
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, records)))
    tokens = tokenise(
        CounterFact(str(tmp_path / "f.jsonl"), distinct=False, split_by="template"),
        wrapped(bare("DNA")),
        replace(RULES, context=300),
    )
    assert tokens.bad_records.first == ("f.jsonl, line 6: no token holds the last character of its subject",)
    assert sum(sequences.rows for sequences in tokens.splits.values()) == 199


def test_ids_beyond_a_vocabulary_with_holes() -> None:
    """Three tokens, the largest of them 9: 9 is known and 10 is not."""
    built = Tokenizer(models.WordLevel({"<s>": 0, "w": 4, "v": 9}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>")
    (document,) = encode([Example("", "g", input_ids=[4, 9])], tokenizer, "all")
    assert document.tokens.tolist() == [4, 9]
    with pytest.raises(ValueError, match="the tokenizer has no token 10"):
        list(encode([Example("", "g", input_ids=[4, 10])], tokenizer, "all"))
