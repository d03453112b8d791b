"""Records that cannot be used are counted, named and left out up to a share (faults.md B3)."""

import json
import random
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.activations.corpora.corpus import Corpus, Example, RecordCounter, collect_counters
from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.corpora.hub import HubText
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.corpora.mixture import Mixture
from atomlab.activations.corpora.parsing import document_example
from atomlab.activations.corpora.records import Record
from atomlab.activations.store.row_origins import Layout, read_bad_records, write_sequences
from atomlab.activations.tokens.tokenise import BadRecords, TokenRules, encode, tokenise
from tests import tiny

GOOD = [json.dumps({"text": f"w{i} w1"}).encode() for i in range(99)]
RULES = TokenRules(context=8, fractions=(0.6, 0.2, 0.2))
BAD = {
    b'{"text": null}': "its field 'text' is null, and neither text nor token ids",
    b'{"body": "w1"}': "it has no text field 'text' but body",
    b'{"\\ud800": "w1"}': "it has no text field 'text' but \\ud800",  # written as an escape, as it cannot be printed
    b'{"text": "w1 \\ud800"}': "its field 'text' holds half of a surrogate pair, U+D800",
    b'{"text": "na\xefve"}': "its field 'text' holds the byte 0xEF, which is not UTF-8",
    b'{"text": "w1\\u0000"}': "its field 'text' holds a NUL character",
    b'{"text": "w1"': "it is not JSON",
    b"\x00\x00\x00": "it is not JSON",
    b"[" * 100_000: "it is not JSON",
    b"5": "it is a number and no object with named fields",
    b"null": "it is null and no object",
    b'["text"]': "it is a list and no object",
    b'{"text": 5}': "its field 'text' is of type int, and neither text nor token ids",
    b'{"text": {"a": 1}}': "its field 'text' is of type dict",
    b'{"text": [1, 2.0]}': "its field 'text' is a list of float, int",
    b'{"text": [1, true]}': "its field 'text' is a list of bool, int",
    b'{"text": [1, 2, 3, 4, 5, 6, 7, 8, 9, "a"]}': "its field 'text' is a list of int, str",
    b'{"text": [[1, 2], [3]]}': "its field 'text' is a list of list",
    b'{"text": [4, null]}': "its field 'text' is a list of int, null",
    b'{"text": [4, -1]}': "its field 'text' holds a number below 0, which is no token id",
    b'{"text": [4, 2147483648]}': "its field 'text' holds a number above 2,147,483,647, which is no token id",
    b'{"text": [1' + b"0" * 400 + b"]}": "its field 'text' holds a number above 2,147,483,647",
    b'{"text": [1' + b"0" * 5000 + b"]}": "it is not JSON",
    b'{"text": [4, 5], "attention_mask": [1]}': "its attention_mask has 1 values for 2 token ids",
    b'{"text": [4, 5], "attention_mask": [1, 2]}': "its attention_mask is not a list of zeros and ones",
    b'{"text": [4, 5], "attention_mask": [[1], 1]}': "its attention_mask is not a list of zeros and ones",
}


def tally(corpus: Corpus) -> RecordCounter:
    found: list[RecordCounter] = []
    list(collect_counters(corpus.examples(), found))
    (only,) = found
    return only


@pytest.mark.parametrize("bad", BAD, ids=[*map(str, range(len(BAD)))])
def test_one_bad_line_is_counted_named_and_left_out(bad: bytes, tmp_path: Path) -> None:
    """faults.md B3: each of these ended the harvest. Line 41 of 100 is bad, which is just the share that may be."""
    file = tmp_path / "t.jsonl"
    file.write_bytes(b"\n".join([*GOOD[:40], bad, *GOOD[40:]]))
    texts = [f"w{i} w1" for i in range(99)]
    for corpus in (LocalText(str(file)), HubText(str(file))):
        assert [example.text for example in corpus.examples()] == texts
        found = tally(corpus)
        assert (found.read, found.bad) == (100, 1)
        ((location, reason),) = found.first_bad
        assert location == "t.jsonl, line 41"
        assert reason.startswith(BAD[bad])
        parts = [[example.text for example in corpus.stream(rank, 3)] for rank in (0, 2)]  # rank 1 has the bad one
        assert [len(part) for part in parts] == [34, 33]
    with pytest.raises(ValueError, match="line 41: ") as caught:
        list(LocalText(str(file), max_bad_share=0).examples())
    assert "1 of 41 records" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_than_the_share_is_refused_with_count_locations_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b"\n".join([*GOOD[:5], b'{"text": null}', *GOOD[5:9], b"{", *GOOD[9:18]]))
    with pytest.raises(ValueError, match="cannot be used") as caught:
        list(LocalText(str(file), max_bad_share=0.09).examples())
    assert str(caught.value) == (
        f"2 of 20 records of corpus.path={file} cannot be used, 10.00% and more than corpus.max_bad_share=0.09: t.jsonl, "
        f"line 6: its field 'text' is null, and neither text nor token ids (others: t.jsonl, line 11); mend them, or raise "
        f"corpus.max_bad_share."
    )
    assert len(list(LocalText(str(file), max_bad_share=0.1).examples())) == 18
    for share in (-0.1, 1, 2):
        for corpus in (LocalText, HubText, CounterFact):
            with pytest.raises(ValueError, match=f"corpus.max_bad_share={share} should be a share"):
                corpus(str(file), max_bad_share=share)


def test_five_bad_records_are_named_however_many_there_are(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([b"{"] * 7 + GOOD[:13]))
    with pytest.raises(ValueError, match="7 of 20 records") as caught:
        list(LocalText(str(tmp_path / "t.jsonl")).examples())
    assert "line 1: it is not JSON" in str(caught.value)
    assert f"(others: {'; '.join(f't.jsonl, line {number}' for number in range(2, 6))}); mend them" in str(caught.value)


def test_a_field_that_no_record_has_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(GOOD))
    with pytest.raises(ValueError, match=r"None of the 99 records read .* it has no text field 'body' but text"):
        list(LocalText(str(tmp_path / "t.jsonl"), field="body", max_bad_share=0.5).examples())


def test_a_wholly_wrong_file_is_refused_before_its_end() -> None:
    """And one that is wrong at its start only is not."""
    read = 0

    def records(bad: int, good: int):
        nonlocal read
        for number in range(bad + good):
            read += 1
            yield Record(f"line {number}", {} if number < bad else {"text": "w1"})

    def example(fields: dict[str, Any]) -> Example:
        return document_example(fields, "text", None)

    with pytest.raises(ValueError, match="None of the 1,000 records"):
        list(RecordCounter("c", 0.01).usable_examples(records(10**9, 0), example))
    assert read == 1000
    found = list(RecordCounter("c", 0.5).usable_examples(records(999, 999), example))
    assert len(found) == 999


@pytest.mark.parametrize(("content", "words"), [
    (b'{"data": [{"text": "w1"}], "version": 1}', "holds one object with the keys 'data', 'version': expected an array"),
    (b"5", "holds a number: expected an array"),
    (b'"text"', "holds a string: expected an array"),
    (b"null", "holds null: expected an array"),
    (b'[{"text": "w1"}, {"text"', "is a broken JSON array"),
    (b"[" * 100_000, "is a broken JSON array"),
    (b"no json", "line 1: it is not JSON"),
    (b'["w1", "w2"]', "record 1: it is a string and no object"),
])  # fmt: skip
def test_json_files_that_are_no_array_of_records(content: bytes, words: str, tmp_path: Path) -> None:
    """faults.md B3: `{"data": [...]}` was a stack trace."""
    file = tmp_path / "t.json"
    file.write_bytes(content)
    for corpus in (LocalText(str(file)), HubText(str(file))):
        with pytest.raises(ValueError, match=r"t\.json") as caught:
            list(corpus.examples())
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_marks_line_ends_and_empty_lines_are_no_records(tmp_path: Path) -> None:
    """A byte order mark, Windows' line ends, blank lines, a .json of one record a line, an empty file."""
    records = [{"text": "w1"}, {"text": "w2\u2028w3"}]
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    contents = {
        "a.jsonl": b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines) + b"\r\n",
        "b.json": b"\xef\xbb\xbf" + json.dumps(records).encode(),
        "c.json": b"\n".join(lines),
        "d.txt": b"\xef\xbb\xbfw1\r\n\r\n\r\n\r\n" + "w2\u2028w3".encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert [example.text for example in LocalText(str(tmp_path / name)).examples()] == ["w1", "w2\u2028w3"], name
    for name in ("e.jsonl", "e.json", "e.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf")
        with pytest.raises(ValueError, match="The corpus is empty"):
            tokenise(LocalText(str(tmp_path / name)), tiny.tokenizer(), RULES)


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    """faults.md B3: a Latin-1 file ended in a codec's words. In .txt one document is bad, in a folder one file."""
    parts = [f"w{i}\nw{i}".encode() for i in range(99)]
    (tmp_path / "t.txt").write_bytes(b"\n\n".join([*parts[:2], "café".encode("latin-1"), *parts[2:]]))
    found = tally(LocalText(str(tmp_path / "t.txt")))
    expected = ("t.txt, line 7", "its field 'text' holds the byte 0xE9, which is not UTF-8")
    assert (found.read, found.bad, found.first_bad) == (100, 1, [expected])
    (tmp_path / "utf16.txt").write_bytes("w1\n\nw2".encode("utf-16"))
    with pytest.raises(ValueError, match=r"utf16.txt, line 1: .*NUL|utf16.txt, line 1: .*0xFF"):
        list(LocalText(str(tmp_path / "utf16.txt")).examples())
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.txt").write_bytes(b"w1\n\nw2")
    (tmp_path / "f" / "b.txt").write_bytes(b"w1\n\n\xff")
    with pytest.raises(ValueError, match=r"1 of 2 records .* b.txt, line 1: .*0xFF"):
        list(LocalText(str(tmp_path / "f")).examples())


def test_bad_rows_of_parquet_and_of_a_saved_dataset(tmp_path: Path) -> None:
    """Text columns may hold any bytes, and null."""
    raw = [f"w{i}".encode() for i in range(200)]
    raw[70] = b"caf\xe9"
    column = pyarrow.array([*raw[:150], None, *raw[151:]], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "t.parquet")
    found = tally(LocalText(str(tmp_path / "t.parquet")))
    assert (found.read, found.bad) == (200, 2)
    assert [location for location, _ in found.first_bad] == ["t.parquet, record 71", "t.parquet, record 151"]
    Dataset.from_dict({"text": [*("w1 w2" for _ in range(150)), None]}).save_to_disk(str(tmp_path / "saved"))
    saved = tally(HubText(str(tmp_path / "saved")))
    expected = ("record 151", "its field 'text' is null, and neither text nor token ids")
    assert (saved.read, saved.bad, saved.first_bad) == (151, 1, [expected])


@pytest.mark.parametrize(("bad", "words"), [
    ({"prompt": "w1 w2"}, "it has no prompt with a subject but prompt"),
    ({"prompt": None, "subject": "w1"}, "its field 'prompt' is null and no text"),
    ({"prompt": "w1 w2", "subject": 7}, "its field 'subject' is of type int and no text"),
    ({"prompt": "w1 w2", "subject": "  "}, "its prompt 'w1 w2' does not contain its subject ''"),
    ({"prompt": "w1 w2", "subject": "w9"}, "its prompt 'w1 w2' does not contain its subject 'w9'"),
    ({"requested_rewrite": {"prompt": "w1", "subject": "w1"}}, "its prompt 'w1' has {} for the subject 0 times"),
    ({"requested_rewrite": {"prompt": "{} {}", "subject": "w1"}}, "its prompt '{} {}' has {} for the subject 2 times"),
    ({"requested_rewrite": {"prompt": "{} w1"}}, "it has no prompt with a subject but requested_rewrite"),
    ({"requested_rewrite": "w1"}, "it has no prompt with a subject but requested_rewrite"),
    ({"text": "w1"}, "it has no prompt with a subject but text"),
])  # fmt: skip
def test_counterfact_records_without_a_prompt_or_a_subject_in_it(
    bad: dict[str, Any], words: str, tmp_path: Path
) -> None:
    good = [{"prompt": f"The {{}} of w{i} is", "subject": f"w{i}"} for i in range(150)]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, [*good, bad])))
    corpus = CounterFact(str(tmp_path / "f.jsonl"))
    examples = list(corpus.examples())
    assert [e.text[slice(*(e.subject or ()))] for e in examples] == [f"w{i}" for i in range(150)]  # literal {} and all
    assert examples[0].text == "The {} of w0 is"
    found = tally(corpus)
    assert (found.read, found.bad) == (151, 1)
    assert found.first_bad[0][0] == "f.jsonl, line 151"
    assert found.first_bad[0][1].startswith(words)
    assert sum(len(list(corpus.stream(rank, 2))) for rank in range(2)) == 150


def test_a_group_that_is_none_is_a_bad_record(tmp_path: Path) -> None:
    """All records with a null title would have been one group called None."""
    lines = [json.dumps({"text": f"w{i}", "title": title}) for i, title in enumerate(["a", None, 7, ["b"], "\ud800"])]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    corpus = LocalText(str(tmp_path / "t.jsonl"), group_field="title", max_bad_share=0.9)
    assert [example.group for example in corpus.examples()] == ["a", "7"]
    assert corpus.group_kind == "title"


def test_what_the_tokenizer_finds_counts_as_well(tmp_path: Path) -> None:
    """Ids that it does not know; a subject that no token holds. The number of both kinds is in the harvest's index."""
    tokenizer = tiny.tokenizer()
    rows = [[1, *range(4 + i, 14 + i)] for i in range(200)]
    rows[7] = [4, 257]
    lines = [*(json.dumps({"ids": row}) for row in rows[:199]), "{"]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    tokens = tokenise(LocalText(str(tmp_path / "t.jsonl"), field="ids"), tokenizer, RULES)
    first = {"t.jsonl, line 8: the tokenizer has no token 257", "t.jsonl, line 200: it is not JSON"}
    assert (tokens.bad_records.count, tokens.bad_records.read) == (2, 200)
    assert {text.partition(" (")[0] for text in tokens.bad_records.first} == first
    write_sequences(tmp_path / "harvest", tokens, Layout(100, 64))
    assert read_bad_records(tmp_path / "harvest") == tokens.bad_records
    with pytest.raises(ValueError, match="2 of 200 records"):
        tokenise(LocalText(str(tmp_path / "t.jsonl"), field="ids", max_bad_share=0.009), tokenizer, RULES)


def test_each_corpus_of_a_mixture_has_its_own_share(tmp_path: Path) -> None:
    """The first ends the mixture; the second, not read to its end, has too many bad records among those read."""
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(GOOD))
    (tmp_path / "b.jsonl").write_bytes(b"\n".join([*(line for good in GOOD for line in (good, b"{")), *GOOD * 900]))
    good, bad = (LocalText(str(tmp_path / f"{name}.jsonl")) for name in "ab")
    with pytest.raises(ValueError, match=r"b.jsonl cannot be used, 49\.\d+%"):
        list(Mixture({"good": good, "bad": bad}, {"good": 1.0, "bad": 1.0}).examples())
    lenient = LocalText(str(tmp_path / "b.jsonl"), max_bad_share=0.5)
    found = list(Mixture({"good": good, "bad": lenient}, {"good": 1.0, "bad": 1.0}).examples())
    assert len(found) == 198
    assert (
        tokenise(Mixture({"a": good, "b": lenient}, {"a": 1.0, "b": 1.0}), tiny.tokenizer(), RULES).bad_records.count
        == 98
    )


def test_a_limit_counts_documents_and_not_bad_records(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([b"{", *GOOD, b"{", b"{"]))
    corpus = LocalText(str(tmp_path / "t.jsonl"), limit=99, max_bad_share=0.01)
    assert len(list(corpus.examples())) == 99
    assert tally(corpus).read == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "\0", "{}", "w1"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "prompt", "subject", "é"]), inner)
    ),
    max_leaves=8,
)
lines = st.lists(
    st.binary(max_size=40)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["text", "prompt", "subject", "attention_mask", "requested_rewrite"]), json_values
    ).map(lambda value: json.dumps(value).encode()),
    max_size=12,
)
KINDS: dict[str, Callable[..., Corpus]] = {
    "local": LocalText,
    "hub": HubText,
    "facts": CounterFact,
    "grouped": lambda path, max_bad_share: LocalText(path, group_field="subject", max_bad_share=max_bad_share),
}


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_that_leaves_nothing_is_refused(tmp_path: Path, limit: int) -> None:
    """A negative one would have been no limit at all."""
    for corpus in (LocalText, HubText, CounterFact):
        with pytest.raises(ValueError, match=f"^corpus.limit={limit} leaves no examples"):
            corpus(str(tmp_path), limit=limit)


@settings(deadline=None, max_examples=100)
@given(lines=lines, suffix=st.sampled_from([".jsonl", ".json", ".txt", ".parquet"]), kind=st.sampled_from([*KINDS]))
def test_any_bytes_give_examples_or_one_sentence(lines: list[bytes], suffix: str, kind: str) -> None:
    """No file ends in anything but ValueError or FileNotFoundError, what is left out adds up, and what is given can be
    tokenised, written and read twice.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"t{suffix}"
        file.write_bytes(b"\n".join(lines))
        found: list[RecordCounter] = []
        try:
            corpus = KINDS[kind](str(file), max_bad_share=0.99)
            examples = list(collect_counters(corpus.examples(), found))
            said = ""
        except (ValueError, FileNotFoundError) as error:
            examples, said = [], str(error)
        assert "\n" not in said
        if said.encode():
            return
        assert examples == list(KINDS[kind](str(file), max_bad_share=0.99).examples())
        if kind != "facts" and found:  # which leaves out repeated ones
            assert found[0].read == len(examples) + found[0].bad
        for example in examples:
            (example.text + example.group).encode()
        position = "all" if kind != "facts" else "last_subject"
        documents = list(encode(examples, tiny.tokenizer(), position))
        assert len(documents) + sum(tally.bad for tally in found) <= sum(tally.read for tally in found)


def test_damaged_files_never_end_in_a_foreign_error(tmp_path: Path) -> None:
    """300 copies of a .parquet file, each with a few bytes changed or its end cut off."""
    generator, refused = random.Random(0), list[str]()
    Dataset.from_list([{"text": f"w{i} " * 9, "n": i} for i in range(60)]).to_parquet(str(tmp_path / "t.parquet"))
    whole = (tmp_path / "t.parquet").read_bytes()
    for number in range(300):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        (tmp_path / "d.parquet").write_bytes(content[: generator.randint(8, len(content)) if number % 5 == 0 else None])
        try:
            list(islice(LocalText(str(tmp_path / "d.parquet"), max_bad_share=0.99).examples(), 1000))
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 60
    assert not any("\n" in said for said in refused)


def test_none_left_out_is_the_default_of_the_index(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(GOOD))
    assert tokenise(LocalText(str(tmp_path / "t.jsonl")), tiny.tokenizer(), RULES).bad_records == BadRecords(0, 99)
