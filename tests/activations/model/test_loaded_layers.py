"""As much of a model is loaded as gives the same activations, in every family; a layer that does not exist is refused."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    Gemma3nTextConfig,
    GPTNeoXJapaneseConfig,
    JambaConfig,
    MambaConfig,
    MarianConfig,
    MiniMaxConfig,
    PretrainedConfig,
    T5Config,
)

from atomlab.activations.model.capture import capture
from atomlab.activations.model.families import FIRST_LAYERS_ONLY
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.model.weight_checks import drop_deeper_layers
from tests.activations.conftest import FAMILIES, GATED, SIZES

TABLE = Path(__file__).parents[3] / "docs" / "families.md"
IDS = {"input_ids": torch.randint(3, 64, (3, 13), generator=torch.Generator().manual_seed(0))}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
STACKS = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "max_position_embeddings": 64,
    **HEADS,
}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def lm(folder: Path) -> LanguageModel:
    return LanguageModel(str(folder), dtype="float32", device="cpu")


def save(config: PretrainedConfig, folder: Path) -> nn.Module:
    torch.manual_seed(0)
    causal = LanguageModel(str(folder), device="cpu")
    config.save_pretrained(folder)
    model = (AutoModelForCausalLM if causal.is_causal else AutoModel).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


@dataclass(frozen=True)
class Case:
    """A family that is not on the list, a layer in it, and how many layers its list has when loaded for that layer."""

    config: PretrainedConfig
    layers: str
    number: int
    left: int


OTHERS = {
    "bart encoder": Case(BartConfig(**STACKS), "encoder.layers", 1, 2),
    "bart decoder": Case(BartConfig(**STACKS), "decoder.layers", 1, 2),
    "marian decoder": Case(MarianConfig(**STACKS, **ENDS), "model.decoder.layers", 0, 1),
    "t5 encoder": Case(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4), "encoder.block", 1, 2
    ),
    "jamba": Case(
        JambaConfig(
            **{k: v for k, v in GATED.items() if k != "head_dim"}, attn_layer_period=2, attn_layer_offset=1,
            mamba_d_state=8, mamba_dt_rank=8, num_experts=4,
        ), "model.layers", 1, 2,
    ),
    "mamba": Case(MambaConfig(vocab_size=64, hidden_size=32, state_size=8, num_hidden_layers=3), "backbone.layers", 1, 2),
    # its last layers take keys and values from earlier ones, and count from the end
    "gemma3n": Case(
        Gemma3nTextConfig(
            **GATED | {"num_hidden_layers": 4}, num_kv_shared_layers=2, vocab_size_per_layer_input=64,
            hidden_size_per_layer_input=16, layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=8,
        ), "model.layers", 1, 2,
    ),
    # its decay of each layer depends on the number of layers, as it is read from the configuration
    "minimax": Case(
        MiniMaxConfig(**GATED, layer_types=["linear_attention", "full_attention", "linear_attention"]), "model.layers", 0, 1
    ),
    # its last layer alone has a bias after attention
    "gpt_neox_japanese": Case(GPTNeoXJapaneseConfig(**SIZES), "gpt_neox_japanese.layers", 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_families_that_are_not_listed_give_the_whole_model_s_activations(tmp_path: Path, name: str) -> None:
    """faults.md A6: BART's decoder was 1.4 off; Gemma 3n, Jamba and Mamba did not load."""
    case = OTHERS[name]
    whole = save(case.config, tmp_path)
    inside = "self_attn" if name == "gemma3n" else None  # which keeps four streams between its layers
    points = [HookPoint(f"{case.layers}.{case.number}" + (f".{inside}" if inside else ""), "output")]
    model = lm(tmp_path)
    assert model.family not in FIRST_LAYERS_ONLY
    loaded = model.load(points)
    for point in points:
        assert torch.equal(capture(loaded, points, IDS)[point], capture(whole, points, IDS)[point])
    assert len(list(loaded.get_submodule(case.layers).children())) == case.left


class _Scaled(nn.Module):
    """Residual branches scaled by the number of layers, as some families have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.others = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + layer(x) / len(self.layers)
        for layer in self.others:
            x = x + layer(x)
        return x


def test_layers_are_kept_where_their_number_matters() -> None:
    """Nobody reported it: a network whose layers depend on how many there are is left whole."""
    model = _Scaled().eval()
    drop_deeper_layers(model, [HookPoint.parse("layers.1.output")], IDS["input_ids"])
    assert len(model.layers) == 4
    drop_deeper_layers(model, [HookPoint.parse("others.1.output")], IDS["input_ids"])
    assert len(model.others) == 2
    assert len(model.layers) == 4


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt2"])
def test_listed_families_read_no_more_layers_than_they_need(families: dict[str, Path], family: str) -> None:
    model = lm(families[family])
    loaded = model.load([model.hook_point("resid_post", 0), model.hook_point("mlp_in", 1)])
    path = model.hook_point("resid_post", 0).module.removesuffix(".0")
    assert len(list(loaded.get_submodule(path).children())) == 2
    behind = HookPoint.parse("transformer.ln_f.output" if family == "gpt2" else "model.norm.output")
    assert len(list(model.load([behind]).get_submodule(path).children())) == 3


def test_the_list_is_the_table_of_the_documents() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.read_text().splitlines() if line[:2] == "| "
    ]
    assert {row[0] for row in rows if row[2] == "first layers only"} == FIRST_LAYERS_ONLY
    assert {row[2] for row in rows[1:]} == {"first layers only", "whole model", "not built here"}
    assert set(FAMILIES) <= FIRST_LAYERS_ONLY


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "bert"])
@pytest.mark.parametrize("layer", [7, -1])
def test_a_layer_that_does_not_exist_is_refused_at_every_site(
    families: dict[str, Path], family: str, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """faults.md A2: paths with `{layer}`, literal numbers and negative ones; weights are not touched."""
    model = lm(families[family])
    layers = model.hook_point("resid_post", 0).module.removesuffix(".0")
    monkeypatch.setattr(LanguageModel, "_read", None)
    with pytest.raises(ValueError, match=rf"layer={layer} does not exist: {family} has 3 layers, counted from 0 to 2"):
        model.hook_point("resid_post", layer)
    for site in (f"{layers}.{{layer}}.output", f"{layers}.{layer}.input", f"{layers}.{{layer}}.mlp.output"):
        with pytest.raises(
            ValueError, match=rf"layer {layer} does not exist, {re.escape(layers)} has 3, counted from 0 to 2"
        ):
            model.hook_point(site, layer)
    with pytest.raises(ValueError, match=rf"layer {layer} does not exist"):
        model.load([HookPoint.parse(f"{layers}.{layer}.output")])


def test_each_stack_has_its_own_number_of_layers(tmp_path: Path) -> None:
    """faults.md A2, D10: the decoder's range is the decoder's, and a path with other braces is no stack trace."""
    save(BartConfig(**STACKS | {"encoder_layers": 1}), tmp_path)
    model = lm(tmp_path)
    assert model.num_layers == 1
    assert str(model.hook_point("decoder.layers.{layer}.output", 2)) == "decoder.layers.2.output"
    with pytest.raises(ValueError, match=r"layer 2 does not exist, encoder\.layers has 1"):
        model.hook_point("encoder.layers.{layer}.output", 2)
    with pytest.raises(ValueError, match=r"has no '\{x\}'"):
        model.hook_point("encoder.{x}.output", 0)


def test_a_decoder_that_needs_a_target_text_is_refused_in_a_sentence(tmp_path: Path) -> None:
    save(OTHERS["t5 encoder"].config, tmp_path)
    with pytest.raises(ValueError, match=r"does not run on input_ids alone .*in the encoder"):
        lm(tmp_path).load([HookPoint.parse("decoder.block.1.output")])
