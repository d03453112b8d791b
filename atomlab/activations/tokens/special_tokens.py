"""The special tokens of a tokenizer: which they are, what it puts around a text, and how they are taken off a text again."""

from collections.abc import Iterator, Sequence
from typing import Any

from atomlab.activations.tokens.sequences import Frame

_TRIED = 10_000  # tokens of the vocabulary


def special_ids(tokenizer: Any) -> set[int]:
    """Finds all tokens that are not text.

    These are the named ones (BOS, EOS, ...), every added token that is marked as special (chat markers), and what the
    tokenizer puts around a text.

    Args:
        tokenizer: a Hugging Face tokenizer.

    Returns:
        Their token ids.

    Raises:
        ValueError: as `frame`.
    """
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    around = frame(tokenizer)
    return {*tokenizer.all_special_ids, *added, *around.prefix, *around.suffix}


def frame(tokenizer: Any) -> Frame:
    """Finds the special tokens that a tokenizer puts around a text, and the token that parts packed documents.

    The frame is measured on the first token of the vocabulary whose text encodes to something that is not in the frame.

    Args:
        tokenizer: a Hugging Face tokenizer.

    Returns:
        Prefix, suffix and separator. The separator is EOS; it is empty if there is a suffix, so that texts end in a
        token of their own, or if the tokenizer has no EOS.

    Raises:
        ValueError: there is no such token among the first 10,000.
    """
    around = tokenizer("")["input_ids"]
    end = tokenizer.eos_token_id
    for word in _words(tokenizer):
        bare, full = tokenizer(word, add_special_tokens=False)["input_ids"], tokenizer(word)["input_ids"]
        if bare and bare[0] not in around and bare[0] in full:
            start = full.index(bare[0])
            if full[start : start + len(bare)] == bare:
                prefix, suffix = full[:start], full[start + len(bare) :]
                return Frame(tuple(prefix), tuple(suffix), () if end is None or suffix else (end,))
    raise ValueError(
        f"The tokenizer {type(tokenizer).__name__} encodes none of the first {_TRIED:,} tokens of its own vocabulary: its "
        "files are missing or do not fit together. Put those that belong to the model (tokenizer.json and "
        "tokenizer_config.json) into its folder; a corpus of token ids needs them too, to show the tokens."
    )


def without_frame(ids: Sequence[int], around: Frame, tokenizer: Any) -> tuple[int, int]:
    """Finds where the text in some token ids starts and stops.

    Runs of padding at both ends are left out (if the padding token has no other meaning), the tokenizer's prefix where it
    is there already, and at the end the tokens of its suffix, or the end-of-text tokens that packing adds.

    Args:
        ids: token ids.
        around: what the tokenizer puts around a text.
        tokenizer: a Hugging Face tokenizer.

    Returns:
        Start and stop, so that `ids[start:stop]` is the text; they are equal where there is none.
    """
    start, stop = 0, len(ids)
    pad = _padding(tokenizer)
    while start < stop and ids[start] == pad:
        start += 1
    while start < stop and ids[stop - 1] == pad:
        stop -= 1
    if tuple(ids[start:stop][: len(around.prefix)]) == around.prefix:
        start += len(around.prefix)
    while start < stop and ids[stop - 1] in around.suffix + around.separator:
        stop -= 1
    return start, stop


def _padding(tokenizer: Any) -> int | None:
    """The padding token, unless it is also something else."""
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id")
    others = {getattr(tokenizer, name, None) for name in names}
    return None if tokenizer.pad_token_id in others else tokenizer.pad_token_id


def _words(tokenizer: Any) -> Iterator[str]:
    """Texts of single tokens, by their number."""
    named = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for number in _numbers(tokenizer):
        if number not in named and tokenizer.convert_ids_to_tokens(number) is not None:
            yield tokenizer.decode([number])


def _numbers(tokenizer: Any) -> Iterator[int]:
    yield from range(min(len(tokenizer), _TRIED))
    yield from sorted(tokenizer.get_vocab().values())[:_TRIED]  # a vocabulary with holes has larger ones
