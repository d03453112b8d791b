"""With activations=online, an activation that is NaN or infinite names its hook point and document (real runs)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.processes import one_sentence, run
from tests.tiny import OPTIONS, WORDS, save_model, save_text

TRAIN = (
    *OPTIONS, "activations=online", "activations.batches.online.buffer_rows=1024", "corpus.limit=100", "reference.limit=100",
    "logger=none", "hydra.run.dir=out",
)  # fmt: skip
BAD = 313  # the document with the word that the model cannot stand, behind those that are harvested


def place_with(folder: Path, value: float) -> Path:
    """400 documents without w251, but for one, and a model whose embedding of it is the value."""
    save_model(folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    weights["model.embed_tokens.weight"][4 + 251] = value
    save_file(weights, folder / "model" / "model.safetensors", {"format": "pt"})
    save_text(folder / "text.txt")
    documents = (folder / "text.txt").read_text().replace(WORDS[251], WORDS[0]).split("\n\n")
    documents[BAD] += f" {WORDS[251]} w1 w2"
    (folder / "text.txt").write_text("\n\n".join(documents))
    return folder


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_process_names_the_document_of_the_corpus(tmp_path: Path, value: float) -> None:
    """Not reported: vectors of NaN were left out as if their norm were above the limit, in silence."""
    place = place_with(tmp_path, value)
    said = one_sentence(run("train.py", *TRAIN, "steps=400", cwd=place, cache=place / "cache"))
    assert f"NaN or infinite activations at model.layers.1.output in document {BAD} of the corpus" in said


def test_of_two_processes_the_one_that_reads_it_names_its_share(tmp_path: Path) -> None:
    place, two = place_with(tmp_path, torch.nan), ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    finished = run("train.py", *TRAIN, *two, "steps=400", cwd=place, cache=place / "cache")
    assert finished.returncode == 2, finished.stderr
    assert f"in document {BAD // 2} of the share that process 1 of 2 reads (counted from 0)" in finished.stderr
    assert "Traceback" not in finished.stderr
