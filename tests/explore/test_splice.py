"""The splice against hooks written by hand, in several families of models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
)

from atomlab import AtomEdit, ThresholdSAE, ablate, add, scale, splice

SMALL: dict[str, Any] = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE: dict[str, Any] = SMALL | {"intermediate_size": 24, "max_position_embeddings": 64}
FAMILIES: dict[str, tuple[PretrainedConfig, str, int]] = {
    "llama": (LlamaConfig(**WIDE, num_key_value_heads=1), "model.layers.1.output", 16),
    "llama, input of a part": (LlamaConfig(**WIDE, num_key_value_heads=1), "model.layers.1.mlp.down_proj.input", 24),
    "llama, tuple": (LlamaConfig(**WIDE, num_key_value_heads=1), "model.layers.1.self_attn.output", 16),
    "gpt2": (GPT2Config(vocab_size=60, n_embd=16, n_layer=3, n_head=2, n_positions=64), "transformer.h.1.output", 16),
    "gpt_neox": (GPTNeoXConfig(**WIDE), "gpt_neox.layers.1.output", 16),
    "bert": (BertConfig(**WIDE), "encoder.layer.1.output", 16),
    "opt, rows": (OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16), "model.decoder.layers.1.fc2.input", 24),
}
IDS = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(1))


def model_of(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    factory = AutoModel if config.model_type == "bert" else AutoModelForCausalLM
    model = factory.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def sae_of(d_in: int, d_sae: int = 20) -> ThresholdSAE:
    torch.manual_seed(2)
    sae = ThresholdSAE(d_in, d_sae)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.3 * torch.randn_like(parameter).abs()
    return sae.requires_grad_(False)


@contextmanager
def by_hand(
    model: torch.nn.Module, path: str, width: int, change: Callable[[torch.Tensor], torch.Tensor], first: int = 1
) -> Iterator[None]:
    """A hook on one known module, written out: (batch, context, width) or (batch · context, width), alone or in a tuple."""
    name, _, side = path.rpartition(".")

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return (changed(value[0]), *value[1:])
        x = value.clone().view(2, -1, width)
        for row in range(2):
            for position in range(first, x.shape[1]):
                x[row, position] = change(x[row, position].float()).to(x.dtype)
        return x.view_as(value)

    module = model.get_submodule(name)
    if side == "input":
        handle = module.register_forward_pre_hook(lambda _, args: changed(args))
    else:
        handle = module.register_forward_hook(lambda _m, _a, output: changed(output))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def output(model: torch.nn.Module, ids: torch.Tensor = IDS, **others: Any) -> torch.Tensor:
    return model(input_ids=ids, **others)[0].float()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_hook_that_one_would_write(family: str) -> None:
    config, path, width = FAMILIES[family]
    model, sae = model_of(config), sae_of(width)
    clean = output(model)
    cases: list[tuple[Any, bool, Callable[[torch.Tensor], torch.Tensor]]] = [
        ((), False, sae),
        (ablate(3, 5), False, lambda x: sae.decode(sae.encode(x).index_fill(0, torch.tensor([3, 5]), 0))),
        (scale(2.5), False, lambda x: 2.5 * sae.encode(x) @ sae.W_dec + sae.b_dec),
        (add(1.5, 4), True, lambda x: x + 1.5 * sae.W_dec[4]),
        ([ablate(), add(2.0, 7)], False, lambda _: 2.0 * sae.W_dec[7] + sae.b_dec),
        (ablate(3), True, lambda x: x - sae.encode(x)[3] * sae.W_dec[3]),
    ]
    for edits, keep_error, change in cases:
        with by_hand(model, path, width, change):
            expected = output(model)
        with splice(model, sae, path, edits, keep_error=keep_error):
            found = output(model)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        assert (found - clean).abs().max() > 1e-3
    assert torch.equal(output(model), clean)


def test_what_must_be_equal_is_equal() -> None:
    config, path, width = FAMILIES["llama"]
    model, sae = model_of(config), sae_of(width)
    results = []
    for edits in ((), scale(1.0), scale(1.0, 2, 3), AtomEdit(None)):
        with splice(model, sae, path, edits):
            results.append(output(model))
    assert all(torch.equal(found, results[0]) for found in results[1:])
    with splice(model, sae, path, ablate()), by_hand(model, path, width, lambda _: sae.b_dec):
        nothing = output(model)
    with by_hand(model, path, width, lambda _: sae.b_dec):
        torch.testing.assert_close(nothing, output(model), atol=1e-6, rtol=1e-5)
    with splice(model, sae, path, scale(1.0), keep_error=True):
        assert torch.equal(output(model), output(model))
        torch.testing.assert_close(output(model), model(input_ids=IDS)[0])


def test_positions_special_tokens_and_padding_are_respected() -> None:
    """Seen in what the next layer gets: the vectors that differ are those that were to be replaced."""
    config, path, width = FAMILIES["llama"]
    model, sae = model_of(config), sae_of(width)
    kept: list[torch.Tensor] = []
    handle = model.get_submodule("model.layers.2").register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    clean = output(model)
    special = torch.isin(IDS, IDS[:, 2])
    later, every = torch.arange(7) > 0, torch.ones(2, 7, dtype=torch.bool)
    for positions, leave, expected in (
        (None, (), every & later),
        ({4, 6}, (), every & torch.isin(torch.arange(7), torch.tensor([4, 6]))),
        (range(3, 10**9), (), every & (torch.arange(7) >= 3)),
        ({0}, (), every & ~later),
        (None, set(IDS[:, 2].tolist()), ~special & later),
    ):
        with splice(model, sae, path, positions=positions, leave=leave):
            spliced = output(model)
        assert torch.equal((kept[-1] != kept[0]).any(-1), expected)
        first = int(expected.any(0).nonzero()[0])
        assert torch.equal(spliced[:, :first], clean[:, :first])
    handle.remove()
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], 1)
    mask = (torch.arange(10) >= 3).long().expand(2, -1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with splice(model, sae, path, add(3.0, 1), positions={0, 2}):
        alone = output(model)
        beside = output(model, padded, attention_mask=mask, position_ids=places)
    torch.testing.assert_close(beside[:, 3:], alone, atol=1e-4, rtol=1e-4)


def test_a_bfloat16_model_keeps_its_dtype_and_what_is_not_replaced() -> None:
    config, path, width = FAMILIES["gpt2"]
    model, sae = model_of(config, torch.bfloat16), sae_of(width)
    kept: list[torch.Tensor] = []
    handle = model.get_submodule("transformer.h.2").register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    output(model)
    with splice(model, sae, path, positions={3}):
        output(model)
    handle.remove()
    clean, changed = kept
    assert changed.dtype == torch.bfloat16
    torch.testing.assert_close(changed[:, 3], sae(clean[:, 3].float()).bfloat16())
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(changed[:, others], clean[:, others])


def test_gradients_reach_the_activations_and_not_the_sae() -> None:
    config, path, width = FAMILIES["llama"]
    model, sae = model_of(config), sae_of(width)
    embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()  # type: ignore[operator]
    with splice(model, sae, path):
        model(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in sae.parameters())


def test_mistakes_are_named_and_leave_no_hook() -> None:
    config, path, width = FAMILIES["llama"]
    model, sae = model_of(config), sae_of(width)
    clean = output(model)
    with (
        pytest.raises(ValueError, match="Atom 20 does not exist: the SAE has 20 atoms, counted from 0 to 19"),
        splice(model, sae, path, ablate(20)),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"model\.layers\.1\.output is 16 wide and the SAE has d_in=24"),
        splice(model, sae_of(24), path),
    ):
        pass
    with pytest.raises(ValueError, match="has no 'layres'"), splice(model, sae, "model.layres.1.output"):
        pass
    with pytest.raises(ValueError, match="A part of the model was called inside a splice"), splice(model, sae, path):
        model.get_submodule("model")(input_ids=IDS)
    with pytest.raises(KeyError), splice(model, sae, path):
        raise KeyError
    with pytest.raises(ValueError, match="names no atom"):
        add(2.0)
    assert torch.equal(output(model), clean)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
