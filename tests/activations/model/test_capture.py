"""capture gives (batch, context, width) whatever the order of a module's axes, and refuses all else."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    MixtralConfig,
    OPTConfig,
    OPTForCausalLM,
    PretrainedConfig,
    T5Config,
    T5Model,
    XLNetConfig,
    XLNetModel,
)

from atomlab.activations.model.capture import (
    capture,
    from_standard_axes,
    is_unambiguous,
    measure_widths,
    possible_axis_orders,
    to_standard_axes,
)
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from tests.activations.conftest import FAMILIES, GATED

SHAPES = [(2, 7), (7, 7), (1, 9), (4, 4), (3, 12), (5, 1)]  # some with as many sequences as tokens, or as heads


def ids(batch: int, context: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, 64, (batch, context), generator=torch.Generator().manual_seed(context))}


def random_model(config: PretrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def one_by_one(model: nn.Module, point: HookPoint, inputs: dict[str, Tensor]) -> Tensor:
    """(batch, context, width): what the module passes for each sequence alone, as (context, width) rows."""
    rows = []
    for sequence in inputs["input_ids"]:
        seen: list[Tensor] = []
        module = model.get_submodule(point.module)

        def before(_: nn.Module, given: tuple, seen: list[Tensor] = seen) -> None:
            seen.append(given[0])

        def after(_: nn.Module, __: tuple, gave: Tensor | tuple, seen: list[Tensor] = seen) -> None:
            seen.append(gave if isinstance(gave, Tensor) else gave[0])

        handle = (
            module.register_forward_pre_hook(before) if point.side == "input" else module.register_forward_hook(after)
        )
        with torch.inference_mode():
            model(input_ids=sequence[None])
        handle.remove()
        rows.append(seen[0].squeeze().reshape(len(sequence), -1))
    return torch.stack(rows)


OPT = OPTConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=64,
    word_embed_proj_dim=32,
)  # fmt: skip
MIXTRAL = MixtralConfig(**{k: v for k, v in GATED.items() if k != "head_dim"}, num_local_experts=4)
POINTS = {
    "OPT's fc2.input": (OPT, "model.decoder.layers.1.fc2.input", 48),
    "a router's input": (MIXTRAL, "model.layers.1.mlp.gate.input", 32),
    "a router's logits": (MIXTRAL, "model.layers.1.mlp.gate.output", 4),
    "all experts": (MIXTRAL, "model.layers.1.mlp.experts.output", 32),
    "queries by head": (FAMILIES["qwen3"], "model.layers.1.self_attn.q_norm.output", 32),
    "keys by head": (FAMILIES["qwen3"], "model.layers.1.self_attn.k_norm.output", 16),
    "plain": (FAMILIES["llama"], "model.layers.1.mlp.output", 32),
}


@pytest.mark.parametrize("name", POINTS)
def test_rows_and_heads_come_in_the_standard_order(name: str) -> None:
    """faults.md C2: OPT's `fc2.input` and MoE gates died in the writer; every sequence is as if it ran alone."""
    config, path, width = POINTS[name]
    model, point = random_model(config), HookPoint.parse(path)
    assert measure_widths(model, [point], 64) == {point: width}
    for batch, context in SHAPES:
        inputs = ids(batch, context)
        seen = capture(model, [point], inputs)[point]
        assert seen.shape == (batch, context, width)
        torch.testing.assert_close(seen, one_by_one(model, point, inputs), rtol=1e-4, atol=1e-5)


def test_positions_first_come_in_the_standard_order() -> None:
    """Nobody reported it: XLNet passes (position, batch, width), which had become other sequences' tokens in silence."""
    model = XLNetModel(XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=48)).eval()
    point = HookPoint.parse("layer.1.output")
    for batch, context in SHAPES:
        seen = capture(model, [point], ids(batch, context))[point]
        with torch.inference_mode():
            expected = model(**ids(batch, context)).last_hidden_state
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)


class _ManyOrders(nn.Module):
    """Passes the vectors of the tokens to its parts in many orders, and some of them, or others, to further parts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 24)
        parts = ("heads_first", "pattern", "twice", "by_value", "some", "expert", "pooled", "averaged", "numbers")
        for name in parts:
            setattr(self, name, nn.Identity())

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        batch = len(x)
        self.heads_first(x.unflatten(2, (4, 6)).transpose(1, 2))
        self.pattern(torch.einsum("bqhd,bkhd->bhqk", *2 * [x.unflatten(2, (4, 6))]))
        rows = x.flatten(0, 1)
        self.twice(rows.repeat_interleave(2, 0))
        self.by_value(rows[rows[:, 0].argsort()])
        self.some(rows[1:])
        self.expert(rows[rows[:, 0] > 0])
        self.pooled(x.mean(1))
        self.averaged(x.new_ones(batch, 7, 24))
        self.numbers(input_ids)
        return x


@pytest.mark.parametrize("shape", SHAPES)
def test_heads_first_are_recognised_where_sizes_coincide(shape: tuple[int, int]) -> None:
    """faults.md C2: (batch, heads, position, head_dim), also with as many heads as positions or sequences."""
    model, point = _ManyOrders().eval(), HookPoint.parse("heads_first.output")
    assert torch.equal(capture(model, [point], ids(*shape))[point], model.embed(ids(*shape)["input_ids"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pattern", "shape (2, 4, 7, 7) for 2 sequences of 7 tokens, which is not one vector|shape (3, 4, 11, 11)"),
        ("twice", "shape (28, 24) for 2 sequences of 7 tokens, which is not one vector"),
        ("some", "shape (13, 24)"),
        ("expert", "an expert sees only the tokens that are routed to it"),
        ("pooled", "shape (2, 24)"),
        ("averaged", "shape (3, 7, 24) for 3 sequences of 11 tokens"),
        ("by_value", "not in the order of the tokens"),
        ("numbers", "passes whole numbers (torch.int64)"),
    ],
)
def test_what_is_not_one_vector_a_token_is_refused_by_name(name: str, message: str) -> None:
    """faults.md C2: subsets, multiples, other orders, attention patterns; the sentence names module and shape."""
    torch.manual_seed(0)
    model, point = _ManyOrders().eval(), HookPoint.parse(f"{name}.output")
    with pytest.raises(ValueError, match="|".join(map(re.escape, message.split("|")))) as raised:
        measure_widths(model, [HookPoint.parse("embed.output"), point], 64)
    assert str(point) in str(raised.value)


def test_a_real_model_s_table_of_relative_positions_is_refused() -> None:
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    bias = HookPoint.parse("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.output")
    with pytest.raises(ValueError, match=r"relative_attention_bias\.output passes a tensor of shape \(7, 7, 4\)"):
        measure_widths(T5Model(config).eval(), [bias], 64)


def test_a_module_that_runs_twice_counts_once_whatever_else_is_captured() -> None:
    """Nobody reported it: a shared layer's activations were the first or the last ones, by what was asked beside it."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer, self.last = nn.Embedding(64, 8), nn.Linear(8, 8), nn.Identity()

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.last(self.layer(self.layer(self.embed(input_ids))))

    model, layer, last = Shared().eval(), HookPoint.parse("layer.output"), HookPoint.parse("last.output")
    alone, beside = capture(model, [layer], ids(2, 5)), capture(model, [layer, last], ids(2, 5))
    first = model.layer(model.embed(ids(2, 5)["input_ids"]))
    assert torch.equal(alone[layer], first)
    assert torch.equal(beside[layer], first)


def test_every_axis_order_is_found_brought_to_the_standard_one_and_back() -> None:
    """Also where several orders fit, as some sizes coincide."""
    for batch, context, heads, size in itertools.product((1, 2, 3, 5), repeat=4):
        x = torch.randn(batch, context, heads * size)
        parts = x.unflatten(2, (heads, size))
        same = {"batch first": parts, "positions first": x.transpose(0, 1), "heads first": parts.transpose(1, 2)}
        for order, y in [*same.items(), ("rows", x.flatten(0, 1)), ("rows", parts.flatten(0, 1)), ("batch first", x)]:
            assert possible_axis_orders(y.shape, batch, context)[order] == heads * size
            assert torch.equal(to_standard_axes(y, order, batch, context), x)
            assert torch.equal(from_standard_axes(x, order, y.shape), y)
            if is_unambiguous(y.shape, batch, context):
                assert torch.equal(y.reshape(x.shape), x)
        assert is_unambiguous(x.shape, batch, context) == (batch != context or batch == 1)


def test_a_plain_shape_costs_one_pass_and_an_unclear_one_several() -> None:
    """Seven sequences of seven tokens could be either way round; two of seven could not."""
    model, point, passes = random_model(FAMILIES["llama"]), HookPoint.parse("model.layers.0.output"), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    capture(model, [point], ids(2, 7))
    assert len(passes) == 1
    capture(model, [point], ids(7, 7))
    assert len(passes) > 2


def test_the_pass_stops_at_the_deepest_site_and_leaves_no_hook_behind() -> None:
    """Also where it fails."""
    model, ran = random_model(FAMILIES["llama"]), []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in ("model.layers.1.mlp.down_proj", "model.layers.2")
    ]
    capture(model, [HookPoint.parse("model.layers.1.mlp.input"), HookPoint.parse("model.layers.0.output")], ids(2, 9))
    assert ran == []
    for handle in handles:
        handle.remove()
    with pytest.raises(ValueError, match=r"never reached model\.layers\.output"):
        capture(model, [HookPoint.parse("model.layers.output"), HookPoint.parse("model.layers.0.input")], ids(2, 9))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_rows_of_a_cut_model_are_the_whole_model_s(tmp_path: Path) -> None:
    """faults.md C2: OPT's `fc2.input` through `LanguageModel.load`."""
    torch.manual_seed(0)
    OPTForCausalLM(OPT).save_pretrained(tmp_path)
    model, point = (
        LanguageModel(str(tmp_path), dtype="float32", device="cpu"),
        HookPoint.parse(POINTS["OPT's fc2.input"][1]),
    )
    whole, short = model.load(), model.load([point])
    for shape in SHAPES:
        assert torch.equal(capture(whole, [point], ids(*shape))[point], capture(short, [point], ids(*shape))[point])
