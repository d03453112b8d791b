"""`open_run` on SAEs of others: in every layout, and where the layer that it opens is that of the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, GPTNeoXConfig, LlamaConfig, PretrainedConfig, Qwen3Config

from atomlab import LanguageModel, atoms_of, load_sae, open_run
from atomlab.explore import model_of_run
from tests.interop.layouts import D_IN, LAYOUTS, X
from tests.tiny import WORDS, save_model

TEXT = " ".join(WORDS[number] for number in (5, 9, 200, 5, 31))
SHAPE: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": D_IN, "intermediate_size": 8, "num_hidden_layers": 21, "num_attention_heads": 1,
    "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = SHAPE | {"num_key_value_heads": 1, "head_dim": 4}
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(vocab_size=257, n_embd=D_IN, n_layer=21, n_head=1, n_positions=64),
    "pythia": GPTNeoXConfig(**SHAPE, rotary_pct=0.5),
    "gemma": Gemma2Config(**GROUPED),
    "qwen": Qwen3Config(**GROUPED),
    "llama": LlamaConfig(**GROUPED),
}
# The module of transformers that the site of a layout means, by the family of the layout's model.
MODULES = {
    ("gpt2", "blocks.3.hook_resid_post"): "transformer.h.3.output",
    ("pythia", "blocks.4.hook_resid_post"): "gpt_neox.layers.4.output",
    ("gemma", "blocks.3.hook_mlp_out"): "model.layers.3.post_feedforward_layernorm.output",
    ("qwen", "blocks.2.hook_resid_post"): "model.layers.2.output",
    ("llama", "blocks.2.hook_resid_post"): "model.layers.2.output",
    ("llama", "blocks.3.hook_mlp_out"): "model.layers.3.mlp.output",
    ("llama", "layers.10.output"): "model.layers.10.output",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    folder = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        save_model(folder / name, config)
    return {name: LanguageModel(str(folder / name), dtype="float32", device="cpu") for name in CONFIGS}


def family(name: str) -> str:
    model = (LAYOUTS[name].model or "").lower()
    return next((family for family in CONFIGS if family in model), "llama")


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_sae_of_others_opens_where_its_files_say(
    tmp_path: Path, models: dict[str, LanguageModel], name: str
) -> None:
    layout, place = LAYOUTS[name], LAYOUTS[name].write(tmp_path / "there")
    model = models[family(name)]
    if layout.site is None:
        with pytest.raises(ValueError, match="does not say where its SAE belongs"):
            open_run(place, model=model)
        opened = open_run(place, model=model, point="blocks.6.hook_resid_pre")
        assert str(opened.point) == "model.layers.6.input"
    else:
        opened = open_run(str(place), model=model)
        assert str(opened.point) == MODULES.get((family(name), layout.site), layout.site)
    torch.testing.assert_close(opened.sae.encode(X), layout.codes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.model and layout.site])
def test_the_model_that_its_files_name_is_asked_of_the_hub(
    tmp_path: Path, models: dict[str, LanguageModel], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked = []
    monkeypatch.setattr(model_of_run, "LanguageModel", lambda hub: asked.append(hub) or models[family(name)])
    assert open_run(LAYOUTS[name].write(tmp_path / "there")).language_model is models[family(name)]
    assert asked == [LAYOUTS[name].model]


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["SAELens jumprelu", "Gemma Scope", "Gemma Scope, embedding", "Llama Scope", "sparsify", "Goodfire"]
)
def test_its_atoms_are_those_of_the_layer_that_transformers_counts(
    tmp_path: Path, models: dict[str, LanguageModel], name: str
) -> None:
    """Against `hidden_states`, in which the first is what the first layer reads and number l + 1 what layer l returns."""
    place, model = LAYOUTS[name].write(tmp_path / "there"), models[family(name)]
    layer = {"SAELens jumprelu": 3, "Gemma Scope": 12, "Gemma Scope, embedding": -1, "Llama Scope": 2, "sparsify": 10}
    whole: Any = model.load()
    ids = model.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    hidden = whole(input_ids=ids, output_hidden_states=True).hidden_states[layer.get(name, 19) + 1][0]
    codes = load_sae(place).encode(hidden)
    expected = {(p, int(a)): float(codes[p, a]) for p in range(1, len(codes)) for a in codes[p].nonzero()}
    found = {(row.position, row.atom): row.activation for row in atoms_of(TEXT, open_run(place, model=model))}
    assert found.keys() == expected.keys()
    assert len(found) > 3
    assert all(found[key] == pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in expected.items())


def test_a_site_that_the_model_lacks_is_said(tmp_path: Path, models: dict[str, LanguageModel]) -> None:
    place = LAYOUTS["Gemma Scope, MLP"].write(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"^llama has no site 'model\.layers\.5\.post_feedforward_layernorm\.output': expected the path",
    ):
        open_run(place, model=models["llama"])
    with pytest.raises(
        ValueError, match=r"^llama has no site 'blocks\.5\.hook_mlp_in': expected the path .* or one of"
    ):
        open_run(place, model=models["llama"], point="blocks.5.hook_mlp_in")
