"""Before the first pass: what cannot work is said in one sentence, and `dry_run` says what a run will take."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, GPT2Config, LlamaConfig, RobertaConfig

from atomlab.activations.harvest.preflight import positions_of
from atomlab.activations.model.language_model import LanguageModel
from tests.processes import one_sentence, run
from tests.tiny import CONFIG, OPTIONS, WORDS, save_model, save_text, tokenizer, workplace

WRONG = {
    "layer": (["site.name=model.layers.0.output"], "site.name=model.layers.0.output names layer 0, and layer=1: write"),
    "context": (
        ["activations.tokens.context=128"],
        "activations.tokens.context=128 is more than the 64 positions of model: use",
    ),
    "embedding": (["model.name=small"], "has no row in the embedding of small, which has 100"),
    "rank": (
        ["reference.limit=3"],
        "The metric S needs at least d_in=32 vectors, and the training split of the reference",
    ),
    "batch": (["batch_size=100000"], "activations.batch_size=100000 is more than the"),
    "latents": (["sae.expansion=0.01"], "sae.expansion=0.01 gives 0 latents for d_in=32"),
    "memory": (["sae.expansion=1e9"], "The training needs at least 1.74e+04 GB of memory, and the device has"),
    "memory, untied": (["sae.expansion=1e9", "sae.tied=false"], "The training needs at least 3.38e+04 GB of memory"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = workplace(tmp_path_factory.mktemp("preflight"))
    small = LlamaConfig(**CONFIG.to_dict() | {"vocab_size": 100})
    save_model(folder / "small", small)
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_harvested_and_nothing_stays(place: Path, name: str) -> None:
    """faults.md C3 (context, embedding), and what else is known from tokens, widths and the machine."""
    before = {path for path in place.iterdir() if path.name != "cache"}
    finished = run("train.py", *OPTIONS, *WRONG[name][0], cwd=place, cache=place / "cache")
    assert WRONG[name][1] in one_sentence(finished)
    assert "harvest:" not in finished.stderr
    assert not list((place / "cache").rglob("*.safetensors"))
    assert not list((place / "cache").glob("activations/*"))
    assert {path for path in place.iterdir() if path.name != "cache"} == before


def test_a_site_without_full_rank_is_named_before_the_harvest(place: Path) -> None:
    """faults.md B2: a LayerNorm's outputs lie in a hyperplane; without a bias S has no inverse either."""
    config = GPT2Config(vocab_size=257, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    model: Any = save_model(place / "gpt", config)
    words = [*OPTIONS, "model.name=gpt", "site=module", "site.name='transformer.h.{layer}.ln_2.output'", "dry_run=true"]
    foreseen = run("train.py", *words, cwd=place, cache=place / "cache")
    assert foreseen.returncode == 0, foreseen.stderr
    assert "transformer.h.1.ln_2.output lie in a plane of 31 of d_in=32 dimensions" in foreseen.stderr
    with torch.no_grad():
        model.transformer.h[1].ln_2.weight.fill_(1)
        model.transformer.h[1].ln_2.bias.zero_()
    model.save_pretrained(place / "gpt")
    said = one_sentence(run("train.py", *words, cwd=place, cache=place / "cache"))
    assert "transformer.h.1.ln_2.output span 31 of d_in=32 dimensions in" in said
    shrunk = run("train.py", *words, "shrinkage=1e-3", cwd=place, cache=place / "cache")
    assert shrunk.returncode == 0, shrunk.stderr


def test_dry_run_says_what_the_run_then_takes(place: Path) -> None:
    cache = place / "whole"
    before = sorted(path.name for path in place.iterdir())
    foreseen = run("train.py", *OPTIONS, "dry_run=true", cwd=place, cache=cache)
    assert foreseen.returncode == 0, foreseen.stderr
    assert sorted(path.name for path in place.iterdir() if path.name != "whole") == before
    said = dict(re.findall(r"^(\w+) +(.*)$", foreseen.stdout, re.MULTILINE))
    assert said["model"] == "model (llama, 3 layers, float32)"
    assert said["site"] == "model.layers.1.output, d_in 32"
    assert said["sae"] == "d_sae 64"
    assert re.fullmatch(r"harvest about \d+ s, training about \d+ s", said["time"])
    # 2 · 128 · 32 · 64 in the product, and 10 · 32 for each of 3 · 128 · L0 entries, L0 that of the start
    assert re.match(r"and process: [\d.e+]+ FLOPs, [\d.]+ MB of memory traffic, 0 MB exchanged; on H100s", said["step"])
    assert float(said["step"].split()[2]) > 2 * 128 * 32 * 64
    done = run("train.py", *OPTIONS, "harvest_only=true", "hydra.run.dir=harvested", cwd=place, cache=cache)
    assert done.returncode == 0, done.stderr
    shards = list(cache.rglob("model.layers.1.output/*-0*.safetensors"))
    written = sum(shard.stat().st_size for shard in shards)
    stated = float(re.match(r"([\d.e+-]+) GB to write", said["cache"])[1]) * 1e9  # type: ignore[index]
    assert stated == pytest.approx(written, rel=0.01)
    rows = int(re.match(r"train ([\d,]+)", said["vectors"])[1].replace(",", ""))  # type: ignore[index]
    assert f"{rows:,} rows of width 32" in done.stdout
    again = run("train.py", *OPTIONS, "dry_run=true", cwd=place, cache=cache)
    assert "none to read: the cache is complete" in again.stdout
    assert "cache    0 GB to write" in again.stdout


def test_a_tokenizer_of_another_model_is_found_by_its_ids(tmp_path: Path) -> None:
    """The vocabulary may be larger than the embedding, as long as no text needs the rest of it."""
    place = workplace(tmp_path)
    tokenizer([*WORDS, *(f"more{i}" for i in range(50))]).save_pretrained(place / "model")
    save_text(place / "text.txt")
    words = [*OPTIONS, "harvest_only=true"]
    assert run("train.py", *words, cwd=place, cache=place / "cache").returncode == 0
    (place / "text.txt").write_text((place / "text.txt").read_text().replace("w7 ", "more40 "))
    assert "The token id 296 has no row in the embedding of model, which has 257" in one_sentence(
        run("train.py", *words, cwd=place, cache=place / "cache")
    )


def test_positions_are_those_that_the_model_can_number() -> None:
    config = RobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    loaded = AutoModelForMaskedLM.from_config(config).eval()
    model = LanguageModel("roberta", device="cpu")
    model.config = config  # type: ignore[misc]
    limit = positions_of(model, loaded)
    assert limit == 18  # RoBERTa counts from the padding's position + 1
    loaded(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        loaded(input_ids=torch.full((1, limit + 1), 5))
