"""A model is known by its content, wherever it lies, and a tokenizer by what it makes of text."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CanineTokenizer, EsmTokenizer, LlamaConfig, LlamaForCausalLM

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.model_digests import tokenizer_digest
from tests.tiny import CONFIG, save_model, tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model")
    return tmp_path / "model"


def mark(folder: Path, **options: str) -> dict:
    return LanguageModel(str(folder), **options).fingerprint  # type: ignore[arg-type]


def test_a_copy_is_the_same_and_what_is_not_read_does_not_matter(folder: Path, tmp_path: Path) -> None:
    """faults.md D9: a copy was harvested again, as was a touched file, and a run on another device."""
    before = mark(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert mark(tmp_path / "copy") == before
    os.utime(folder / "model.safetensors", (0, 0))
    for name in ("README.md", "trainer_state.json", "training_args.bin", "optimizer.bin", "generation_config.json"):
        (folder / name).write_text("{}")
    assert mark(folder) == before
    assert mark(folder, device="meta") == mark(folder, device="cpu") == before
    assert mark(folder, dtype="float32") != before
    assert str(tmp_path) not in json.dumps(before)


@pytest.mark.parametrize("what", ["weights", "config", "tokenizer"])
def test_what_is_read_does_matter(folder: Path, what: str) -> None:
    """Also where size and time stay the same."""
    before, file = mark(folder), folder / "model.safetensors"
    times = file.stat()
    if what == "weights":
        weights = load_file(file)
        save_file(weights | {"model.norm.weight": weights["model.norm.weight"] + 1}, file, {"format": "pt"})
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif what == "config":
        LlamaConfig(**CONFIG.to_dict() | {"rms_norm_eps": 1e-3}).save_pretrained(folder)
    else:
        tokenizer([f"w{i}" for i in reversed(range(252))]).save_pretrained(folder)
    assert mark(folder) != before


def test_every_shard_counts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(CONFIG).save_pretrained(tmp_path, max_shard_size="60KB")
    tokenizer().save_pretrained(tmp_path)
    seen = {mark(tmp_path)["folder"]}
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        save_file({name: value + 1 for name, value in load_file(shard).items()}, shard, {"format": "pt"})
        seen.add(mark(tmp_path)["folder"])
    assert len(seen) == len(shards) + 1


def test_a_hub_model_is_its_commit(tmp_path: Path) -> None:
    """Without a commit there is no identity: a branch's name is refused."""
    model = LanguageModel("somebody/model")
    model.config = LlamaConfig()
    with pytest.raises(ValueError, match=r"model\.revision=main of 'somebody/model' could not be resolved to a commit"):
        _ = model.fingerprint
    model.config._commit_hash = "a" * 40
    assert model.fingerprint == {"hub": "somebody/model", "commit": "a" * 40, "dtype": "torch.bfloat16"}
    pinned = LanguageModel("somebody/model", revision="b" * 40)
    pinned.config = LlamaConfig()
    assert pinned.fingerprint["commit"] == "b" * 40


def test_the_last_call_of_a_tokenizer_does_not_change_it() -> None:
    """Nobody reported it: padding and truncation of a call stay in the backend, and made another fingerprint."""
    tool = tokenizer()
    before = tokenizer_digest(tool)
    tool(["w1 w2", "w3"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tool) == before


def test_tokenizers_without_a_rust_backend(tmp_path: Path) -> None:
    """faults.md C4: a fingerprint for them too, by the content of their vocabulary."""

    def esm(name: str, words: list[str]) -> str:
        file = tmp_path / name / "vocab.txt"
        file.parent.mkdir()
        file.write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *words]))
        return tokenizer_digest(EsmTokenizer(str(file)))

    assert esm("one", ["A", "C"]) == esm("copy", ["A", "C"]) != esm("other", ["C", "A"])
    assert tokenizer_digest(CanineTokenizer()) == tokenizer_digest(CanineTokenizer())
