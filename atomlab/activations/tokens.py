"""Text to token sequences: packing, the positions whose activations are kept, and splits that share no group."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomlab.activations.corpus import Corpus, Example

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Sequences:
    """Token sequences of various lengths, end to end.

    Attributes:
        input_ids: (tokens,) int32.
        offsets: (sequences + 1,) int64, where each sequence starts.
        keep: (tokens,) bool, whose activations are wanted; the kept tokens, in order, are the rows of the store.
        group: (tokens,) int32, the document, subject or template each token belongs to.
    """

    input_ids: Tensor
    offsets: Tensor
    keep: Tensor
    group: Tensor

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    @property
    def rows(self) -> int:
        return int(self.keep.sum())

    def select(self, order: Tensor) -> "Sequences":
        """The sequences of the given numbers, in that order."""
        starts, lengths = self.offsets[order], self.lengths[order]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        index = torch.arange(int(offsets[-1])) + torch.repeat_interleave(starts - offsets[:-1], lengths)
        return Sequences(self.input_ids[index], offsets, self.keep[index], self.group[index])

    def rows_per_sequence(self) -> Tensor:
        kept = torch.cat([torch.zeros(1, dtype=torch.int64), self.keep.cumsum(0)])
        return kept[self.offsets[1:]] - kept[self.offsets[:-1]]


def tokenise(
    corpus: Corpus,
    tokenizer: Any,
    *,
    context: int,
    fractions: Sequence[float],
    max_rows: int | None,
    seed: int,
    drop_first: bool,
    drop_special: bool,
) -> dict[str, Sequences]:
    """A corpus as token sequences of train, validation and test, which share no group.

    Args:
        tokenizer: a fast Hugging Face tokenizer (prompts need its character offsets).
        context: tokens a sequence; longer prompts raise.
        fractions: of the kept tokens that go to train, validation and test.
        max_rows: kept tokens over all splits; a random sample of sequences makes them up.
        seed: of the split and the sample.
        drop_first: leave out position 0, an attention sink whose norm dwarfs all others.
        drop_special: leave out special tokens.

    Raises:
        ValueError: an empty corpus, fewer than three groups, or a split without tokens.
    """
    examples = [example for example in corpus.examples() if example.text.strip()]
    if not examples:
        raise ValueError("The corpus is empty: it has no text; check corpus.path and corpus.limit.")
    encoded = tokenizer(
        [e.text for e in examples], add_special_tokens=False, return_offsets_mapping=not corpus.packed, verbose=False
    )
    ids = encoded["input_ids"]
    weights: dict[str, int] = {}
    for example, tokens in zip(examples, ids, strict=True):
        weights[example.group] = weights.get(example.group, 0) + (len(tokens) if corpus.packed else 1)
    split_of = split_groups(weights, fractions, seed)
    number_of = {group: number for number, group in enumerate(weights)}
    prefix, suffix = surrounding_tokens(tokenizer)
    special = torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.int32)

    result = {}
    for split, fraction in zip(SPLITS, fractions, strict=True):
        mine = [i for i, example in enumerate(examples) if split_of[example.group] == split]
        groups = [number_of[examples[i].group] for i in mine]
        if corpus.packed:
            separator = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None and not suffix else []
            sequences = pack([ids[i] for i in mine], groups, context, prefix, separator, suffix)
        else:
            wanted = [kept_position(examples[i], encoded["offset_mapping"][i], corpus.position) for i in mine]
            sequences = prompts([ids[i] for i in mine], wanted, groups, context, prefix, suffix)
        keep = sequences.keep.clone()
        if drop_first:
            keep[sequences.offsets[:-1]] = False
        if drop_special:
            keep &= ~torch.isin(sequences.input_ids, special)
        sequences = Sequences(sequences.input_ids, sequences.offsets, keep, sequences.group)
        result[split] = sample(sequences, None if max_rows is None else round(fraction * max_rows), seed)
        if not result[split].rows:
            raise ValueError(
                f"The {split} split of the corpus has no tokens left: give more text, or change activations.fractions={list(fractions)}."
            )
    return result


def split_groups(weights: Mapping[str, int], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Assigns each group to a split, so that the splits' weights are near `fractions`.

    Groups are taken in the order of a keyed hash, so the split depends on the groups' names and the seed only, not on the order of reading.

    Raises:
        ValueError: fewer groups than splits, or fractions that do not sum to 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"activations.fractions={list(fractions)} should be three positive numbers (train, validation, test) that sum to 1."
        )
    if len(weights) < len(SPLITS):
        raise ValueError(
            f"The corpus has {len(weights)} group(s) (documents, subjects or templates), and train, validation and test need one each: give more text."
        )
    order = sorted(weights, key=lambda group: hashlib.blake2b(f"{seed} {group}".encode(), digest_size=8).digest())
    shares = torch.tensor([weights[group] for group in order], dtype=torch.float64) / sum(weights.values())
    middle = shares.cumsum(0) - shares / 2
    first = min(
        max(int((middle < fractions[0]).sum()), 1), len(order) - 2
    )  # a few large groups should leave no split empty
    second = min(max(int((middle < fractions[0] + fractions[1]).sum()), first + 1), len(order) - 1)
    return {group: SPLITS[(i >= first) + (i >= second)] for i, group in enumerate(order)}


def pack(
    documents: Iterable[Sequence[int]],
    groups: Iterable[int],
    context: int,
    prefix: list[int],
    separator: list[int],
    suffix: list[int],
) -> Sequences:
    """Documents end to end with a separator between them, cut into full contexts; the rest that fills none is left out.

    Each context starts with `prefix` (e.g. BOS) and ends with `suffix` (e.g. BERT's SEP).
    """
    body = context - len(prefix) - len(suffix)
    if body < 1:
        raise ValueError(
            f"activations.context={context} leaves no room for text beside {len(prefix) + len(suffix)} special tokens."
        )
    stream: list[int] = []
    owner: list[int] = []
    for document, group in zip(documents, groups, strict=True):
        tokens = [*document, *separator]
        stream += tokens
        owner += [group] * len(tokens)
    rows = len(stream) // body
    text = torch.tensor(stream[: rows * body], dtype=torch.int32).view(rows, body)
    group = torch.tensor(owner[: rows * body], dtype=torch.int32).view(rows, body)
    around = [torch.tensor(tokens, dtype=torch.int32).expand(rows, -1) for tokens in (prefix, suffix)]
    group = torch.cat([group[:, :1].expand(-1, len(prefix)), group, group[:, -1:].expand(-1, len(suffix))], dim=1)
    input_ids = torch.cat([around[0], text, around[1]], dim=1).flatten()
    return Sequences(
        input_ids, torch.arange(rows + 1) * context, torch.ones_like(input_ids, dtype=torch.bool), group.flatten()
    )


def prompts(
    documents: Sequence[Sequence[int]],
    wanted: Sequence[int | None],
    groups: Sequence[int],
    context: int,
    prefix: list[int],
    suffix: list[int],
) -> Sequences:
    """One prompt a sequence; `wanted` is the position whose activation is kept (None: all), counted without the prefix."""
    extra = len(prefix) + len(suffix)
    if documents and (longest := max(map(len, documents)) + extra) > context:
        raise ValueError(f"A prompt has {longest} tokens, more than activations.context={context}: raise it.")
    lengths = torch.tensor([len(document) + extra for document in documents], dtype=torch.int64)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    input_ids = torch.tensor([t for document in documents for t in (*prefix, *document, *suffix)], dtype=torch.int32)
    keep = torch.zeros(len(input_ids), dtype=torch.bool)
    for start, length, position in zip(offsets.tolist(), lengths.tolist(), wanted, strict=False):
        keep[slice(start, start + length) if position is None else start + len(prefix) + position] = True
    return Sequences(input_ids, offsets, keep, torch.tensor(groups, dtype=torch.int32).repeat_interleave(lengths))


def kept_position(example: Example, character_offsets: Sequence[tuple[int, int]], position: str) -> int | None:
    """The token of a prompt whose activation is kept: None for all, the last, or the one that holds the subject's last character."""
    if position == "all":
        return None
    if position == "last":
        return len(character_offsets) - 1
    assert example.subject is not None
    last = example.subject[1] - 1
    return next(i for i, (start, end) in enumerate(character_offsets) if start <= last < end)


def surrounding_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that this tokenizer puts before and after a text (BOS; CLS and SEP; none)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def sample(sequences: Sequences, max_rows: int | None, seed: int) -> Sequences:
    """Sequences in random order, as many as give at most `max_rows` kept tokens (all if None), then sorted by length."""
    order = torch.randperm(len(sequences.lengths), generator=torch.Generator().manual_seed(seed))
    if max_rows is not None:
        order = order[sequences.rows_per_sequence()[order].cumsum(0) <= max_rows]
    return sequences.select(order[sequences.lengths[order].argsort(stable=True)])
