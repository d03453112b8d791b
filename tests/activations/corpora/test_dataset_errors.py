"""What other libraries raise becomes one true sentence: network, name or file (faults.md C5 and E5)."""

import gzip
import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.corpora.counterfact import CounterFact
from atomlab.activations.corpora.hub import HubText
from atomlab.activations.corpora.local import LocalText

RECORDS = [{"text": f"w{i}"} for i in range(200)]


def parquet(file: Path) -> bytes:
    Dataset.from_list(RECORDS).to_parquet(str(file))
    return file.read_bytes()


def refused(corpus: Corpus, error: type[Exception] = ValueError) -> str:
    """The one sentence that both naming and reading it end in, or reading alone."""
    with pytest.raises(error) as caught:
        list(corpus.examples())
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_a_subset_that_a_folder_does_not_have(tmp_path: Path) -> None:
    """`corpus=hub` has Wikipedia's subset unless it is set, and a folder has none."""
    (tmp_path / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    with pytest.raises(ValueError, match=r"has no subset of that name: give corpus.subset=null"):
        assert HubText(str(tmp_path), subset="20231101.en").fingerprint


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
@pytest.mark.parametrize("kind", [LocalText, HubText, CounterFact])
def test_a_damaged_parquet_file_is_named(kind, damage: str, tmp_path: Path) -> None:
    """faults.md E5: a stack trace of Arrow. A byte inside the pages shows too, wherever the writer left checksums."""
    file = tmp_path / "p.parquet"
    whole = parquet(file)
    middle = whole[:4] + bytes(60) + whole[64:]
    file.write_bytes({"truncated": whole[:-50], "empty": b"", "text": b"no parquet at all", "flipped": middle}[damage])
    said = refused(kind(str(file)))
    assert "p.parquet is damaged after record 0, or no Parquet file" in said


@pytest.mark.parametrize("kind", [LocalText, HubText, CounterFact])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "folder", "loop", "unreadable"])
def test_only_regular_files_are_opened(kind, target: str, tmp_path: Path) -> None:
    """faults.md E5: a FIFO or /dev/zero in place of a file kept the run waiting for ever; /proc/self/mem is a regular
    file that cannot be read from its start.
    """
    file = tmp_path / "records.jsonl"
    if target == "pipe":
        os.mkfifo(file)
    elif target == "folder":
        file.mkdir()
    else:
        file.symlink_to({"loop": str(file), "unreadable": "/proc/self/mem"}.get(target, target))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        assert kind(str(file)).fingerprint
    expected = {"pipe": "regular file", "/dev/zero": "regular file", "unreadable": "cannot be read"}
    assert expected.get(target, "records.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["part.jsonl", ".huggingface.yaml", "deep/part.jsonl"])
def test_a_pipe_among_the_files_of_a_folder_keeps_nobody_waiting(name: str, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="is a pipe: expected a regular file"):
        assert HubText(str(tmp_path)).fingerprint


def test_a_folder_of_texts_with_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w1 w2")
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(ValueError, match="is a pipe: expected a regular file"):
        assert LocalText(str(tmp_path)).fingerprint


def test_files_that_datasets_reads(tmp_path: Path) -> None:
    """gzip, zip, YAML and a script: errors that are no ValueError or OSError of their own accord."""
    broken = {
        "gzip": ("a.csv.gz", gzip.compress(b"text\nw1\n" * 500)[:-12], "damaged"),
        "zip": ("a.zip", b"PK\x03\x04 and nothing", "damaged"),
        "yaml": ("README.md", b"---\nconfigs: [\n---\n", "damaged"),
        "none": ("notes.xyz", b"none", "lacks a file"),
        "script": ("script.py", b"", "made by a script, which `datasets` runs no more"),
    }
    for folder, (name, content, words) in broken.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
        assert words in refused(HubText(str(tmp_path / folder)), (ValueError, FileNotFoundError)), folder


def test_a_saved_dataset_that_is_not_whole(tmp_path: Path) -> None:
    Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "saved"))
    data = next((tmp_path / "saved").glob("*.arrow"))
    whole, state = data.read_bytes(), (tmp_path / "saved" / "state.json").read_text()
    data.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(HubText(str(tmp_path / "saved")))
    data.unlink()
    assert "does not exist" in refused(HubText(str(tmp_path / "saved")), FileNotFoundError)
    data.write_bytes(whole)
    for text in ("", "{}", "[]", state.replace(data.name, f"../{data.name}"), "[" * 100_000):
        (tmp_path / "saved" / "state.json").write_text(text)
        assert "save it again" in refused(HubText(str(tmp_path / "saved")))


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    assert "has no split 'dev' but train" in refused(HubText(str(tmp_path), split="dev"), FileNotFoundError)
    file = HubText(str(tmp_path / "train.jsonl"), split="dev")
    assert "its only split is train" in refused(file, FileNotFoundError)
    part = HubText(str(tmp_path), split="train[:7]", streaming=False)  # an expression of `datasets`
    assert [example.text for example in part.examples()] == [record["text"] for record in RECORDS[:7]]


def test_paths_that_are_none(tmp_path: Path) -> None:
    for name in ("no/such/folder", str(tmp_path / "none"), "a\0b", "x" * 5000):
        with pytest.raises((FileNotFoundError, ValueError)) as caught:
            assert HubText(name).fingerprint
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="holds no text"):
        assert LocalText("a\0b.jsonl").fingerprint
