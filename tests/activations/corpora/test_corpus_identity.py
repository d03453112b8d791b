"""A corpus is what its files hold, or a commit of the hub, and is read from just that (faults.md A3)."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.corpora.hub import HubText
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.corpora.mixture import Mixture
from atomlab.activations.store.files import harvest_key
from tests.activations.conftest import in_own_process

RECORDS = [{"text": f"w{i}", "prompt": f"w{i} w1", "subject": f"w{i}"} for i in range(6)]


def lines(folder: Path, records: list[dict[str, str]] = RECORDS) -> None:
    for part in range(2):
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records[part::2]))


def csv(folder: Path, records: list[dict[str, str]] = RECORDS) -> None:
    (folder / "all.csv").write_text("text,prompt,subject\n" + "".join(f"{','.join(r.values())}\n" for r in records))


def saved(folder: Path, records: list[dict[str, str]] = RECORDS) -> None:
    Dataset.from_list(records).save_to_disk(str(folder))


def saved_splits(folder: Path, records: list[dict[str, str]] = RECORDS) -> None:
    DatasetDict({"train": Dataset.from_list(records), "test": Dataset.from_list(RECORDS)}).save_to_disk(str(folder))


CORPORA: dict[str, tuple[Callable[..., None], Callable[[Path], Corpus]]] = {
    "folder": (lines, lambda folder: HubText(str(folder))),
    "file": (lines, lambda folder: HubText(str(folder / "1.jsonl"))),
    "folder that datasets reads": (csv, lambda folder: HubText(str(folder))),
    "file that datasets reads": (csv, lambda folder: HubText(str(folder / "all.csv"))),
    "saved": (saved, lambda folder: HubText(str(folder))),
    "saved splits": (saved_splits, lambda folder: HubText(str(folder))),
    "facts": (lines, lambda folder: CounterFact(str(folder / "1.jsonl"))),
    "folder of facts": (lines, lambda folder: CounterFact(str(folder))),
    "local": (lines, lambda folder: LocalText(str(folder / "1.jsonl"))),
    "mixture": (
        lines,
        lambda folder: Mixture(
            {"a": HubText(str(folder)), "b": LocalText(str(folder / "1.jsonl"))}, {"a": 1.0, "b": 1.0}
        ),
    ),
}


@pytest.mark.parametrize("kind", CORPORA)
def test_the_same_content_has_the_same_name_and_another_one_another(kind: str, tmp_path: Path) -> None:
    """faults.md A3: two folders named alike with different files, or an edited one, were one corpus."""
    write, corpus = CORPORA[kind]
    changed = [*RECORDS[:-1], RECORDS[-1] | {"text": "w7", "prompt": "w5 w2"}]
    for name, records in (("a", RECORDS), ("b", RECORDS), ("c", changed)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, records)
    a, b, c = (corpus(tmp_path / name) for name in "abc")
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != c.fingerprint
    texts = [[example.text for example in each.examples()] for each in (a, b, c)]
    assert texts[0] == texts[1] != texts[2]
    assert str(tmp_path) not in json.dumps(a.fingerprint)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", changed)  # edited in place
    assert corpus(tmp_path / "a").fingerprint == c.fingerprint


@pytest.mark.parametrize("kind", ["folder", "saved splits"])
def test_relative_paths_are_what_they_lead_to(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """faults.md A3: `corpus.name=data` in two working folders."""
    write, _ = CORPORA[kind]
    names = []
    for folder, records in (("here", RECORDS), ("there", RECORDS[:4])):
        (tmp_path / folder / "data").mkdir(parents=True)
        write(tmp_path / folder / "data", records)
        monkeypatch.chdir(tmp_path / folder)
        corpus = HubText("data")
        names.append(corpus.fingerprint)
        assert len(list(corpus.examples())) == len(records)
    assert names[0] != names[1]


def test_order_and_way_of_reading_are_part_of_the_name(tmp_path: Path) -> None:
    """Two files that swap their names, and text that is read as text or as records."""
    for folder, names in (("a", ("0", "1")), ("b", ("1", "0"))):
        (tmp_path / folder).mkdir()
        for name, text in zip(names, ("one", "two"), strict=True):
            (tmp_path / folder / f"{name}.txt").write_text(text)
    assert LocalText(str(tmp_path / "a")).fingerprint != LocalText(str(tmp_path / "b")).fingerprint
    for suffix in ("txt", "jsonl"):
        (tmp_path / f"same.{suffix}").write_text('{"text": "w1"}\n')
    assert LocalText(str(tmp_path / "same.txt")).fingerprint != LocalText(str(tmp_path / "same.jsonl")).fingerprint


OPTIONS: dict[str, tuple[Callable[..., Corpus], dict[str, object]]] = {
    "local": (
        LocalText,
        {"field": "prompt", "group_field": "subject", "packed": False, "limit": 2, "max_bad_share": 0.5},
    ),
    "prompts": (lambda path, **given: LocalText(path, packed=False, **given), {"position": "last"}),
    "hub": (HubText, {"field": "prompt", "group_field": "subject", "limit": 2, "max_bad_share": 0.5}),
    "facts": (
        CounterFact,
        {"position": "last", "split_by": "template", "distinct": False, "limit": 2, "max_bad_share": 0.5},
    ),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option_that_changes_the_examples_is_part_of_the_name(kind: str, tmp_path: Path) -> None:
    lines(tmp_path)
    corpus, options = OPTIONS[kind]
    path = str(tmp_path / "1.jsonl")
    names = [corpus(path).fingerprint, *(corpus(path, **{name: value}).fingerprint for name, value in options.items())]
    assert len({json.dumps(name, sort_keys=True) for name in names}) == 1 + len(options)


def test_weights_and_names_of_a_mixture_are_part_of_its_name(tmp_path: Path) -> None:
    lines(tmp_path)
    a, b = (LocalText(str(tmp_path / f"{part}.jsonl")) for part in (0, 1))
    mixtures = [
        Mixture({"a": a, "b": b}, {"a": 1.0, "b": 2.0}),
        Mixture({"a": a, "b": b}, {"a": 2.0, "b": 1.0}),
        Mixture({"a": b, "b": a}, {"a": 1.0, "b": 2.0}),
        Mixture({"a": a, "c": b}, {"a": 1.0, "c": 2.0}),
    ]
    assert len({json.dumps(mixture.fingerprint, sort_keys=True) for mixture in mixtures}) == 4


def test_the_name_of_a_corpus_is_what_it_was(tmp_path: Path) -> None:
    """Every harvest in a cache is found by a digest of this description: another one would harvest everything anew."""
    (tmp_path / "t.txt").write_text("w1 w2\n\nw3\n")
    digest = hashlib.sha256(b"w1 w2\n\nw3\n").hexdigest()
    rules = {"field": "text", "group_field": None, "packed": True, "position": "all", "limit": None}
    corpus = LocalText(str(tmp_path / "t.txt"))
    assert corpus.fingerprint == {"local": [[".txt", digest]]} | rules | {"max_bad_share": 0.01}
    assert harvest_key(corpus.fingerprint) == "91058f2e65ded59a"


@pytest.mark.parametrize("kind", ["folder", "saved", "facts", "local"])
def test_what_changes_while_it_is_read_is_refused(kind: str, tmp_path: Path) -> None:
    """The name was taken of other content than what the harvest would hold."""
    write, corpus = CORPORA[kind]
    write(tmp_path)
    named = corpus(tmp_path)
    assert named.fingerprint
    file = next(tmp_path.glob("*.arrow"), tmp_path / "1.jsonl")
    times = file.stat()
    examples = named.examples()
    next(examples)
    with file.open("ab") as stream:
        stream.write(b"\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match="changed while they were read"):
        list(examples)


def test_a_hub_dataset_is_its_commit_and_is_read_there(tmp_path: Path) -> None:
    """faults.md A3 (hub sets without a revision) and C5 (what kept it from being read), on a hub that runs here."""
    seen = json.loads(in_own_process("read_from_hub.py", tmp_path).splitlines()[-1])
    old, new = ({"name": "me/mine", "commit": letter * 40} for letter in "ab")
    texts = {word: [f"{word} {i}" for i in range(3)] for word in ("old", "new")}
    assert seen["named"] == seen["facts named"] == old
    assert seen["read after the branch moved"] == texts["old"]
    assert seen["facts"] == ["The mother tongue of Ada is"]
    assert seen["streamed"] == seen["mapped"] == seen["by branch"] == [new, texts["new"]]
    assert seen["by commit"] == [old, texts["old"]]
    assert "There is no dataset 'me/other'" in seen["no name"]
    assert "of that revision" in seen["no revision"]
    assert "corpus.split" in seen["no split"]
    assert seen["seen before"] == f"no error but {new}"
    assert seen["commit without a hub"] == old
    assert "The hub could not be reached, and this machine has another commit" in seen["not to be read"]
    assert "another commit of 'me/mine' than aaaa" in seen["another commit here"]
    assert "corpus.revision=<commit>" in seen["never seen"]
    assert all(
        text.startswith("FileNotFoundError") for name, text in seen.items() if name.startswith(("never", "no name"))
    )
