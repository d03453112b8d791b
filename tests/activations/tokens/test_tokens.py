"""Packing, prompts, positions and splits against brute force."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.tokens.sequences import Frame, equal_lengths, pack, pack_apart, prompts, sample
from atomlab.activations.tokens.tokenise import SPLITS, TokenRules, split_groups, tokenise

RULES = TokenRules(context=8, fractions=(0.6, 0.2, 0.2), separate_documents=False)
FRAME = Frame(prefix=(1,), suffix=(3,), separator=(2,))


def ids(*documents: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(document, dtype=torch.int32) for document in documents]


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40), seed=st.integers(0, 99))
def test_splits_share_no_group_and_do_not_depend_on_order(sizes: list[int], seed: int) -> None:
    weights = {f"g{i}": size for i, size in enumerate(sizes)}
    split = split_groups(weights, (0.8, 0.1, 0.1), seed)
    assert set(split) == set(weights)
    assert set(split.values()) == set(SPLITS)
    assert split == split_groups(dict(reversed(weights.items())), (0.8, 0.1, 0.1), seed)


def test_packing_loses_only_the_tail_and_frames_each_context() -> None:
    packed = pack(ids([5, 6, 7], [8, 9]), [0, 1], 5, FRAME)
    assert packed.input_ids.view(-1, 5).tolist() == [[1, 5, 6, 7, 3], [1, 2, 8, 9, 3]]
    assert packed.document.view(-1, 5).tolist() == [[0] * 5, [0, 0, 1, 1, 1]]
    assert packed.position.view(-1, 5).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert packed.offsets.tolist() == [0, 5, 10]


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30), context=st.integers(3, 12), framed=st.booleans())
def test_documents_apart_are_whole_and_framed(lengths: list[int], context: int, framed: bool) -> None:
    """Each part is prefix + consecutive tokens of one document + suffix at positions 0, 1, ...; parts in order are
    the documents.
    """
    frame = Frame(prefix=(1,), suffix=(3,)) if framed else Frame()
    documents = ids(*([100 * i + 10 + j for j in range(length)] for i, length in enumerate(lengths)))
    packed = pack_apart(documents, list(range(len(lengths))), context, frame)
    assert set(packed.lengths.tolist()) <= {context}
    parts = torch.tensor_split(torch.arange(len(packed.position)), (packed.position == 0).nonzero().squeeze(1)[1:])
    texts: dict[int, list[int]] = {}
    for part in parts if len(packed.position) else ():
        tokens, (owner,) = packed.input_ids[part].tolist(), packed.document[part].unique().tolist()
        assert packed.position[part].tolist() == list(range(len(part)))
        if not packed.keep[part].all():  # filled up
            assert set(tokens) <= {1, 3}
            continue
        if framed:
            assert tokens[0] == 1
            assert tokens[-1] == 3 or part[-1] == len(packed.position) - 1
            tokens = [token for token in tokens if token > 3]
        texts.setdefault(owner, []).extend(tokens)
    seen = [token for number in sorted(texts) for token in texts[number]]
    assert seen == torch.cat(documents).tolist()[: len(seen)]
    assert sum(lengths) - len(seen) < context


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 6), max_size=20), batch_tokens=st.integers(1, 12))
def test_runs_are_of_one_length_within_the_limit_and_as_long_as_they_can_be(
    lengths: list[int], batch_tokens: int
) -> None:
    """A sequence longer than the limit is a run of its own, the first one too."""
    lengths = sorted(lengths)
    sequences = prompts(ids(*([7] * length for length in lengths)), [0] * len(lengths), range(len(lengths)), 8, Frame())
    runs = equal_lengths(sequences, batch_tokens)
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(lengths)))  # all of them, in order
    assert all(start < stop for start, stop in runs)
    for start, stop in runs:
        assert len(set(lengths[start:stop])) == 1
        assert stop - start == 1 or (stop - start) * lengths[start] <= batch_tokens
    for (start, stop), _ in itertools.pairwise(runs):  # one more would be of another length or beyond the limit
        assert lengths[stop] != lengths[start] or (stop + 1 - start) * lengths[start] > batch_tokens


def test_prompts_keep_one_position_and_selecting_keeps_them_together() -> None:
    frame = Frame(prefix=(1,))
    sequences = prompts(ids([5, 6, 7], [8], [9, 10]), [1, 0, None], [0, 1, 2], 9, frame)
    assert [sequences.input_ids[sequences.keep].tolist(), sequences.rows_per_sequence().tolist()] == [
        [6, 8, 1, 9, 10],
        [1, 1, 3],
    ]
    chosen = sequences.select(torch.tensor([2, 0]))
    assert chosen.input_ids.tolist() == [1, 9, 10, 1, 5, 6, 7]
    assert chosen.input_ids[chosen.keep].tolist() == [1, 9, 10, 6]
    assert chosen.document.tolist() == [2, 2, 2, 0, 0, 0, 0]
    assert sample(sequences, 4, seed=0).rows <= 4
    with pytest.raises(ValueError, match="context=3"):
        prompts(ids([1, 2, 3]), [0], [0], 3, frame)


def test_text_files_become_full_contexts_without_first_and_special_tokens(
    families: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families["llama"])
    (tmp_path / "t.txt").write_text("\n\n".join(" ".join(f"w{(7 * i + j) % 60}" for j in range(20)) for i in range(20)))
    splits = tokenise(LocalText(str(tmp_path / "t.txt")), tokenizer, RULES).splits
    groups = [set(splits[name].document.tolist()) for name in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for sequences in splits.values():
        assert set(sequences.lengths.tolist()) == {8}
        assert not sequences.keep.view(-1, 8)[:, 0].any()
        assert not sequences.keep[sequences.input_ids == tokenizer.eos_token_id].any()
    assert (splits["train"].input_ids == tokenizer.eos_token_id).any()  # documents are parted
    every = {name: sequences.rows for name, sequences in splits.items()}
    limit = sum(every.values()) // 2
    some = tokenise(LocalText(str(tmp_path / "t.txt")), tokenizer, replace(RULES, max_tokens=limit)).splits
    for name, fraction in zip(SPLITS, RULES.fractions, strict=True):  # a sequence has at most 7 kept tokens
        wanted = min(every[name], round(fraction * limit))
        assert wanted - 7 < some[name].rows <= wanted


def test_a_document_weighs_its_tokens_and_a_prompt_one(families: dict[str, Path], tmp_path: Path) -> None:
    """One of many documents has half of all tokens, so a split by tokens gives the others less than one by documents."""
    tokenizer = AutoTokenizer.from_pretrained(families["llama"])
    sizes = [400, *[20] * 20]
    (tmp_path / "t.txt").write_text(
        "\n\n".join(" ".join(f"w{(7 * i + j) % 60}" for j in range(n)) for i, n in enumerate(sizes))
    )
    corpus = LocalText(str(tmp_path / "t.txt"))
    documents = [example.group for example in corpus.examples()]
    for seed in range(4):
        rules = replace(RULES, seed=seed)
        found = tokenise(corpus, tokenizer, rules).splits
        wanted = split_groups(dict(zip(documents, sizes, strict=True)), rules.fractions, seed)
        numbers = {name: set(sequences.document.tolist()) for name, sequences in found.items()}
        assert all(number in numbers[wanted[group]] for number, group in enumerate(documents) if sizes[number] == 20)


@pytest.mark.parametrize("rome", [False, True])
def test_counterfact_keeps_the_last_subject_token(families: dict[str, Path], tmp_path: Path, rome: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families["llama"])
    facts = [(f"w1 w2 {{}} w{i}", f"w{i + 10} w{i + 20}") for i in range(9)]
    records = [
        {"requested_rewrite": {"prompt": t, "subject": s}} if rome else {"prompt": t.replace("{}", s), "subject": s}
        for t, s in facts
    ]
    file = tmp_path / "facts.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in [*records, records[0]]))
    splits = tokenise(CounterFact(str(file)), tokenizer, RULES).splits
    kept = sorted(t for s in splits.values() for t in tokenizer.convert_ids_to_tokens(s.input_ids[s.keep].tolist()))
    assert kept == sorted(subject.split()[1] for _, subject in facts)  # and the repeated record counts once
    last = tokenise(CounterFact(str(file), position="last", split_by="template"), tokenizer, RULES).splits
    assert sum(s.rows for s in last.values()) == 9


def test_bad_corpora_are_named(families: dict[str, Path], tmp_path: Path) -> None:
    tokenizer, file = AutoTokenizer.from_pretrained(families["llama"]), tmp_path / "t.txt"
    for text, words in (("", "empty"), ("w1 w2 w3", "1 group"), ("w1\n\nw2\n\nw3\n\nw4", "no tokens left")):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            tokenise(LocalText(str(file)), tokenizer, RULES)
    with pytest.raises(FileNotFoundError, match="holds no text"):
        list(LocalText(str(tmp_path / "none.txt")).examples())
    (tmp_path / "r.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(ValueError, match="no text field 'text' but body"):
        list(LocalText(str(tmp_path / "r.jsonl")).examples())
    (tmp_path / "f.jsonl").write_text('{"case_id": 4, "prompt": "a b", "subject": "c"}\n')
    with pytest.raises(ValueError, match=r"line 1: its prompt .a b. does not contain its subject .c."):
        list(CounterFact(str(tmp_path / "f.jsonl")).examples())
    with pytest.raises(ValueError, match="position=all"):
        CounterFact("f", position="all")
    with pytest.raises(ValueError, match="fractions"):
        split_groups({"a": 1, "b": 1, "c": 1}, (0.5, 0.5, 0.5), 0)
