"""The text of each token as the tokenizer joins it: a space where it puts one, and no marks of its own."""

from collections.abc import Sequence
from typing import Any, final

_BROKEN = "\ufffd"  # what a decoder shows in place of bytes that are no whole character


@final
class TokenTexts:
    """Gives the text of each token of a sequence, so that joined they are the text that the tokenizer decodes.

    A decoder that sees one token alone cannot know whether a space belongs in front of it: SentencePiece drops the space
    of a text's first piece, and WordPiece joins whole words with spaces and leaves the ## of later pieces. So each token
    is decoded behind another one, and the text of that one is taken off. A character whose bytes are spread over several
    tokens (byte-level tokenizers, byte fallback) stands at the last of them, and the others are empty.

    Args:
        tokenizer: a Hugging Face tokenizer: WordPiece, SentencePiece, byte-level or another.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._known = tokenizer, {}
        self._anchor, self._before = _anchor(tokenizer)

    def __call__(self, ids: Sequence[int]) -> list[str]:
        """Returns the text of each token.

        Args:
            ids: token ids in reading order.

        Returns:
            One text a token. Special tokens keep their names.

        Cost: one decoding of each token that was not seen before, and of each run of tokens with broken characters.
        """
        texts = [self.text(token) for token in ids]
        start = 0
        while start < len(ids):
            if _BROKEN not in texts[start]:
                start += 1
                continue
            stop = start + 1
            while stop < len(ids) and _BROKEN in texts[stop]:
                stop += 1
            texts[start:stop] = self._whole_characters(ids[start:stop])
            start = stop
        return texts

    def text(self, token: int) -> str:
        """Returns the text of one token inside a text, with a space in front of it if it starts a word."""
        if token not in self._known:
            joined = self._decode([*self._anchor, token])
            own = joined.removeprefix(self._before)
            self._known[token] = own if joined.startswith(self._before) else self._decode([token])
        return self._known[token]

    def _whole_characters(self, ids: Sequence[int]) -> list[str]:
        """Texts of tokens that hold parts of characters: each character stands at the token that completes it."""
        done, texts = "", []
        for stop in range(1, len(ids) + 1):
            joined = self._decode([*self._anchor, *ids[:stop]]).removeprefix(self._before)
            last = stop == len(ids)
            whole = joined if last else joined.rstrip(_BROKEN)
            texts.append(whole.removeprefix(done) if whole.startswith(done) else "")
            done = whole if whole.startswith(done) else done
        return texts

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


def _anchor(tokenizer: Any) -> tuple[list[int], str]:
    """A token that others are decoded behind, and its text: the first of the vocabulary that is a word of letters."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in sorted(tokenizer.get_vocab().values()):
        text = tokenizer.decode([token], skip_special_tokens=False) if token not in special else ""
        if text.strip().isalnum():
            return [token], text
    return [], ""
