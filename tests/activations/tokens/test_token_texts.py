"""The texts of tokens, joined, are what the tokenizer decodes: with each kind of tokenizer."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from atomlab.activations.tokens.token_texts import TokenTexts

TEXTS = [
    "The playing players replayed their plays in the playground, didn't they?",
    "Cairo (Egypt) has 9.5 million people; the Nile flows there.",
    "naïve café — 東京 🙂 and Ω",
]


def byte_level() -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bare.train_from_iterator(
        TEXTS[:2], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bare)


def word_piece() -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bare.normalizer, bare.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    bare.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    bare.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]", cls_token="[CLS]")


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama's: ▁ for spaces, bytes for what is unknown, and a decoder that strips the first space."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bare = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bare.train_from_iterator(TEXTS[:2], trainers.BpeTrainer(vocab_size=360, special_tokens=pieces, show_progress=False))
    bare.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    vocabulary, merges = _parts(bare)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    own = Tokenizer(model)
    own.normalizer, own.decoder = bare.normalizer, bare.decoder
    own.add_special_tokens(["<unk>", "<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", bos_token="<s>")


def _parts(bare: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    found = json.loads(bare.to_str())["model"]
    return found["vocab"], [tuple(merge) for merge in found["merges"]]


KINDS = {"byte-level": byte_level, "WordPiece": word_piece, "SentencePiece": sentence_piece}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_joined_they_are_what_the_tokenizer_decodes(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text.split())
    texts = TokenTexts(tokenizer)(ids)
    assert len(texts) == len(ids)
    assert "".join(texts).strip() == tokenizer.decode(ids).strip()
    assert "\ufffd" not in "".join(texts)
    assert not any("##" in part or "▁" in part or "Ġ" in part for part in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_that_starts_a_word_has_its_space_and_another_has_none(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "the playing the"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)(ids)
    assert texts[-1].lstrip(" ") in ("the", "he", "e")
    joined = "".join(texts).split(" ")
    assert joined[-3:] == ["the", "playing", "the"]
    # out of its context, as the list of an atom's logits shows it
    inside = TokenTexts(tokenizer)
    assert all(inside.text(token) == shown for token, shown in zip(ids[1:], texts[1:], strict=True))


@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece"])
def test_a_character_of_several_tokens_stands_at_the_last_of_them(kind: str) -> None:
    tokenizer = KINDS[kind]()
    ids = tokenizer("a東b", add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)(ids)
    place = next(number for number, part in enumerate(texts) if "東" in part)
    assert texts[place] == "東"
    assert texts[place - 2 : place] == ["", ""]
