"""Text to token sequences of train, validation and test, which share no group."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor

from atomlab.activations.corpora.corpus import Corpus, Example, Position, RecordCounter, collect_counters
from atomlab.activations.tokens.sequences import Sequences, pack, pack_apart, prompts, sample
from atomlab.activations.tokens.special_tokens import frame, special_ids, without_frame
from atomlab.ranges import Count, Seed, check_ranges

SPLITS = ("train", "validation", "test")
_TEXTS_AT_ONCE = 1024
_NAMED = 5  # bad records that the index names


@dataclass(frozen=True)
class Document:
    """An example as token ids.

    Attributes:
        tokens: (tokens,) int32.
        group: what a held-out split must not tear apart.
        wanted: the position whose activation is kept; None keeps all.
    """

    tokens: Tensor
    group: str
    wanted: int | None = None


@dataclass(frozen=True)
class BadRecords:
    """The records of a corpus that were left out.

    Attributes:
        count: how many were left out.
        read: how many were read.
        first: location and reason of the first few.
    """

    count: int = 0
    read: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A corpus as token sequences.

    Attributes:
        splits: the sequences of each split.
        groups: the group of each example, by its number.
        bad_records: the records that were left out.
    """

    splits: dict[str, Sequences]
    groups: list[str]
    bad_records: BadRecords = BadRecords()


@final
@dataclass(frozen=True)
class TokenRules:
    """The rules by which a text becomes token sequences, and which tokens' activations are kept.

    Attributes:
        context: tokens of a sequence. A prompt that is longer is an error.
        max_tokens: tokens that are kept over all splits, in randomly chosen sequences; None keeps all.
        fractions: shares of the kept tokens that go to train, validation and test.
        drop_first: leave out position 0, an attention sink whose norm is far above all others'. Where documents are
            kept apart, this is the first position of each document.
        drop_special: leave out special tokens.
        separate_documents: documents that are packed into one sequence do not see one another, in models that can do
            this (`LanguageModel.separates_documents`).
        seed: of the split, of the choice of sequences, and of the measured samples. It is independent of the seed of a
            run, so that runs of several seeds have the same data.

    Raises:
        ValueError: `max_tokens` is below 1.
    """

    context: Count = 256
    max_tokens: Count | None = None
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    drop_first: bool = True
    drop_special: bool = True
    separate_documents: bool = True
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges("activations.tokens", self)


def tokenise(corpus: Corpus, tokenizer: Any, rules: TokenRules) -> Tokens:
    """Turns a corpus into token sequences of train, validation and test, which share no group.

    Args:
        corpus: the text.
        tokenizer: a Hugging Face tokenizer (a fast one for position last_subject).
        rules: of the tokens and the split.

    Returns:
        The sequences of each split. Memory: 4 bytes a token of the corpus while it is split, 17 a token that is kept.

    Raises:
        ValueError: an empty corpus, too many bad records, fewer than three groups, or a split without tokens.
    """
    counted: list[RecordCounter] = []
    documents = list(encode(collect_counters(corpus.examples(), counted), tokenizer, corpus.position))
    bad_records = _bad_records(counted)
    if not documents:
        raise ValueError("The corpus is empty: it has no text; check corpus.path and corpus.limit.")
    weights: dict[str, int] = {}
    for document in documents:
        weights[document.group] = weights.get(document.group, 0) + (len(document.tokens) if corpus.packed else 1)
    split_of = split_groups(weights, rules.fractions, rules.seed)
    result = {}
    for split, fraction in zip(SPLITS, rules.fractions, strict=True):
        mine = [number for number, document in enumerate(documents) if split_of[document.group] == split]
        sequences = lay_out([documents[i] for i in mine], mine, tokenizer, rules, packed=corpus.packed)
        result[split] = sample(
            sequences, None if rules.max_tokens is None else round(fraction * rules.max_tokens), rules.seed
        )
        if not result[split].rows:
            raise ValueError(
                f"The {split} split of the corpus has no tokens left: give more text, or change "
                f"activations.tokens.fractions={list(rules.fractions)}."
            )
    return Tokens(result, [document.group for document in documents], bad_records)


def _bad_records(counted: Sequence[RecordCounter]) -> BadRecords:
    for counter in counted:
        counter.check_share()  # all has been read, and the tokenizer may have found some as well
    first = (f"{location}: {reason}" for counter in counted for location, reason in counter.first_bad)
    return BadRecords(sum(c.bad for c in counted), sum(c.read for c in counted), tuple(islice(first, _NAMED)))


def encode(examples: Iterable[Example], tokenizer: Any, position: Position) -> Iterator[Document]:
    """Turns examples into token ids without the special tokens around them; examples without text are left out.

    What the tokenizer puts around a text is added later, so it is taken off where it is there already (`without_frame`).
    Token ids that the tokenizer does not know, and prompts whose subject no token holds, are bad records.

    Args:
        examples: texts, or token ids.
        tokenizer: a Hugging Face tokenizer.
        position: whose activation is kept of a prompt.

    Yields:
        The documents, in the order of the examples.

    Raises:
        ValueError: position last_subject with a tokenizer that gives no character offsets.
    """
    if position == "last_subject" and not tokenizer.is_fast:
        raise ValueError(
            f"corpus.position=last_subject needs to know which characters a token stands for, and the tokenizer "
            f"{type(tokenizer).__name__} has no fast version that says so: use corpus.position=last, or another model."
        )
    remaining, around = iter(examples), frame(tokenizer)
    while some := list(islice(remaining, _TEXTS_AT_ONCE)):
        texts = [example.text for example in some if example.input_ids is None]
        encoded = _encoded(texts, tokenizer, offsets=position == "last_subject")
        for example in some:
            ids, offsets = next(encoded) if example.input_ids is None else (example.input_ids, None)
            if (wrong := _unknown(ids, tokenizer)) is not None:
                example.leave_out(f"the tokenizer has no token {wrong}")
                continue
            start, stop = without_frame(ids, around, tokenizer)
            if start < stop and (example.input_ids is not None or example.text.strip()):
                wanted = kept_position(example, stop - start, offsets and offsets[start:stop], position)
                if position == "last_subject" and wanted is None:
                    example.leave_out("no token holds the last character of its subject")
                else:
                    yield Document(torch.tensor(ids[start:stop], dtype=torch.int32), example.group, wanted)


def _encoded(texts: list[str], tokenizer: Any, *, offsets: bool) -> Iterator[tuple[list[int], Any]]:
    """Token ids of each text, and the characters of each token if they are asked for."""
    if not texts:
        return iter(())
    asked = {"return_offsets_mapping": True} if offsets else {}
    found = tokenizer(texts, add_special_tokens=False, verbose=False, **asked)
    return zip(found["input_ids"], found["offset_mapping"] if offsets else [None] * len(texts), strict=True)


def _unknown(ids: Sequence[int], tokenizer: Any) -> int | None:
    """The largest token id, if the tokenizer has no token for it."""
    largest = max(ids, default=0)
    if largest < len(tokenizer):
        return None
    return None if largest <= max(tokenizer.get_vocab().values()) else largest  # a vocabulary may have holes


def lay_out(
    documents: Sequence[Document], numbers: Sequence[int], tokenizer: Any, rules: TokenRules, *, packed: bool
) -> Sequences:
    """Packs documents into full contexts, or makes one sequence of each prompt.

    Args:
        documents: as token ids.
        numbers: the number of each document in the corpus.
        tokenizer: whose special tokens are put around a text.
        rules: of the tokens.
        packed: whether documents are packed end to end; otherwise each is a prompt.

    Returns:
        The sequences, with the tokens marked that are kept.

    Raises:
        ValueError: a prompt that is longer than the context, or a context without room beside the special tokens.
    """
    tokens = [document.tokens for document in documents]
    if packed:
        sequences = (pack_apart if rules.separate_documents else pack)(tokens, numbers, rules.context, frame(tokenizer))
    else:
        wanted = [document.wanted for document in documents]
        sequences = prompts(tokens, wanted, numbers, rules.context, frame(tokenizer))
    keep = sequences.keep
    if rules.drop_first:
        keep = keep & (sequences.position > 0)
    if rules.drop_special:
        special = torch.tensor(sorted(special_ids(tokenizer)), dtype=torch.int32)
        keep = keep & ~torch.isin(sequences.input_ids, special)
    return replace(sequences, keep=keep)


def split_groups(weights: Mapping[str, int], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Assigns each group to a split, so that the weights of the splits are near some fractions.

    Groups are taken in the order of a keyed hash, so that the split does not depend on the order of reading.

    Args:
        weights: tokens or prompts of each group.
        fractions: shares of train, validation and test.
        seed: key of the hash.

    Returns:
        The split of each group by the group's name. Every split has at least one group.

    Raises:
        ValueError: fewer groups than splits, or fractions that are not three positive numbers with the sum 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"activations.tokens.fractions={list(fractions)} should be three positive numbers (train, validation, test) "
            f"that sum to 1."
        )
    if len(weights) < len(SPLITS):
        raise ValueError(
            f"The corpus has {len(weights)} group(s) (documents, subjects or templates), and train, validation and "
            f"test need one each: give more text."
        )
    order = sorted(weights, key=lambda group: hashlib.blake2b(f"{seed} {group}".encode(), digest_size=8).digest())
    shares = torch.tensor([weights[group] for group in order], dtype=torch.float64) / sum(weights.values())
    middle = shares.cumsum(0) - shares / 2
    # a few large groups should leave no split empty
    first = min(max(int((middle < fractions[0]).sum()), 1), len(order) - 2)
    second = min(max(int((middle < fractions[0] + fractions[1]).sum()), first + 1), len(order) - 1)
    return {group: SPLITS[(i >= first) + (i >= second)] for i, group in enumerate(order)}


def kept_position(
    example: Example, length: int, offsets: Sequence[tuple[int, int]] | None, position: Position
) -> int | None:
    """Finds the token of a prompt whose activation is kept.

    Args:
        example: the prompt.
        length: number of its tokens.
        offsets: characters [start, stop) of each token; None if they were not asked for.
        position: which token is wanted. For `last_subject` it is the last token that holds a part of the subject's last
            character, on which a byte-level tokenizer may spend several.

    Returns:
        Number of the token in the prompt, from 0. None stands for all tokens if `position` is `all`; for `last_subject`
        it says that there is no such token.
    """
    if position == "all":
        return None
    if position == "last":
        return length - 1
    assert example.subject is not None
    assert offsets is not None
    last = example.subject[1] - 1
    return max((i for i, (start, end) in enumerate(offsets) if start <= last < end), default=None)
