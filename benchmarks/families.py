"""Of which model families the first layers alone give the activations of the whole model: `python -m benchmarks.families`.

Every causal, masked and encoder configuration of transformers is built small with random weights, saved, and loaded
through `LanguageModel` twice: whole, and with its first 1, 2 and 3 layers. A family is on the list if the input and
output of each of these layers are equal to the bit, in every list of layers that has the configuration's length, and if
its code uses the number of layers for nothing but building that list. Prints docs/families.md; `code` as an argument
prints the list for `atomlab/activations/model/families.py`. Takes about ten minutes.
"""

import inspect
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
)
from transformers.utils import logging

from atomlab.activations.model.capture import capture
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint

FIRST, WHOLE, UNKNOWN = "first layers only", "whole model", "not built here"
LAYERS, SECONDS, LARGEST = 4, 60, 30_000_000
_IDS = torch.randint(4, 100, (2, 19), generator=torch.Generator().manual_seed(0))
_SMALL: dict[str, object] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 128),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("hidden_size_per_layer_input", "lru_width", "attention_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "global_head_dim", "swa_head_dim", "kv_channels", "attention_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "n_inner", "hidden_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_inner", "dense_intermediate_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size", "intermediate_size_mlp"), 24),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len"), 128),
    **dict.fromkeys(("sliding_window", "attention_window", "local_attention", "attention_chunk_size"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "time_step_rank", "mamba_dt_rank"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    "n_mamba_heads": 2,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "conv_kernel": 4,
    "num_nextn_predict_layers": 0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "altup_num_inputs": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
}
_COUNTS = r"(?:num_hidden_layers|num_layers|n_layers?|encoder_layers|decoder_layers)"
_BUILDING = re.compile(
    rf"range\([^()]*\b{_COUNTS}\)|\[\s*:\s*(?:self\.)?config\.{_COUNTS}\s*\]|self\.{_COUNTS} = config\.{_COUNTS}$"
)


class _TooLong(Exception):
    pass


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def configurations() -> dict[str, type[PretrainedConfig]]:
    """Model type to configuration class; of the last mapping those of text alone."""
    found = {kind.model_type: kind for kind in (*MODEL_FOR_CAUSAL_LM_MAPPING, *MODEL_FOR_MASKED_LM_MAPPING)}
    found.pop("", None)
    for kind in MODEL_MAPPING:
        try:
            model: Any = MODEL_MAPPING[kind]
        except (ImportError, ValueError):  # a class that this installation lacks
            continue
        model = model[0] if isinstance(model, tuple) else model
        if not kind.sub_configs and "input_ids" in inspect.signature(model.forward).parameters:
            found.setdefault(kind.model_type, kind)
    return dict(sorted((name, kind) for name, kind in found.items() if name))


def small(kind: type[PretrainedConfig]) -> PretrainedConfig:
    """The configuration with small sizes in place of its own, also those of its parts."""
    plain = kind()
    sizes = {name: size for name, size in _SMALL.items() if _has(plain, name)}
    if _has(plain, "attention_types"):  # of GPT-Neo, which counts them
        sizes["attention_types"] = [[["global", "local"], LAYERS // 2]]
    if _has(plain, "kv_lora_rank"):  # as many keys as queries
        sizes["num_key_value_heads"] = 4
    if _has(plain, "num_kv_shared_layers"):  # half of the layers take their keys and values from the other half
        sizes |= {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}
    parts: Any = kind.sub_configs
    for name in parts:
        if isinstance(part := getattr(plain, name, None), PretrainedConfig):
            inner: dict[str, Any] = small(type(part)).to_dict()
            if "text" not in name:  # a stack that token ids alone do not run, of another length
                layers = {key for key, size in inner.items() if key in _SMALL and size == LAYERS and "layer" in key}
                inner |= dict.fromkeys(layers, LAYERS + 1)
            sizes[name] = inner
    again = {name for name, other in plain.attribute_map.items() if other in sizes}  # a second name of the same size
    return kind(**{name: size for name, size in sizes.items() if name not in again})  # type: ignore[arg-type]


def _has(config: PretrainedConfig, name: str) -> bool:
    kept = getattr(type(config), name, None)
    if isinstance(kept, property) and kept.fset is None:
        return False
    try:
        value = getattr(config, name)
    except Exception:  # a size that differs from layer to layer
        return False
    return value != -1 and (value is not None or name in {"head_dim", "vocab_size", "pad_token_id"})


def built(kind: type[PretrainedConfig], folder: Path) -> LanguageModel:
    """A small model with large random weights, saved."""
    config = small(kind)
    model = LanguageModel(str(folder), dtype="float32", device="cpu")
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    factory = AutoModelForCausalLM if causal else AutoModel
    with torch.device("meta"):
        size = sum(weight.numel() for weight in factory.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} weights with the sizes that the script knows")
    torch.manual_seed(0)
    made = factory.from_config(config)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.is_floating_point():
                weight += 0.05 * torch.randn_like(weight)
    made.save_pretrained(folder)
    return model


def lists(model: nn.Module, length: int) -> list[str]:
    """Names of the outermost lists of layers of a length."""
    found = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == length]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def only_builds_layers(model: nn.Module) -> str | None:
    """The first line of the model's code that uses the number of layers for more than building the list; None if none."""
    modules = {inspect.getmodule(type(part)) for part in model.modules()}
    for module in sorted((m for m in modules if m and m.__name__.startswith("transformers.models.")), key=str):
        source = re.sub(r'""".*?"""', "", inspect.getsource(module), flags=re.DOTALL)
        source = re.sub(r"    def _init_weights.*?(?=\n    def |\n    @|\nclass |\n@)", "", source, flags=re.DOTALL)
        for line in source.splitlines():
            bare = _BUILDING.sub("", line.partition("#")[0].strip())
            if re.search(rf"\bconfig\.{_COUNTS}\b|\bself\.{_COUNTS}\b", bare):
                return line.strip()
    return None


def verdict(model: LanguageModel) -> tuple[str, str]:
    """Whether the first layers alone give the same activations, and why not."""
    whole = model.load()
    names = lists(whole, model.num_layers)
    if not names:
        return WHOLE, "no list of as many layers"
    if model.config.is_encoder_decoder:
        return WHOLE, "two stacks of layers"
    points = [HookPoint(f"{name}.{i}", side) for name in names for i in range(LAYERS) for side in ("input", "output")]  # type: ignore[arg-type]  # fmt: skip
    expected = {
        point: value for name in names for point, value in _captured(whole, _below(points, name, LAYERS)).items()
    }
    for depth in range(1, LAYERS):
        try:
            first, _ = model._read(depth)
            if any(len(first.get_submodule(name)) != depth for name in names):  # type: ignore[arg-type]
                return WHOLE, "the number of layers in its configuration is not this list's"
            for name in names:
                found = _captured(first, _below(points, name, depth))
                if not all(torch.equal(value, expected[point]) for point, value in found.items()):
                    return WHOLE, "activations differ"
        except (_TooLong, AssertionError):
            raise
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0][:110]
            return WHOLE, f"does not run with fewer layers ({type(error).__name__}: {said})"
    if line := only_builds_layers(whole):
        return WHOLE, f"equal here, but its code has `{line}`"
    return FIRST, ""


def _below(points: list[HookPoint], name: str, depth: int) -> list[HookPoint]:
    return [point for point in points if point.module in {f"{name}.{i}" for i in range(depth)}]


def _captured(model: nn.Module, points: list[HookPoint]) -> dict[HookPoint, torch.Tensor]:
    return capture(model.eval(), points, {"input_ids": _IDS})


def row(name: str, kind: type[PretrainedConfig]) -> tuple[str, str, str, str]:
    shown, why, judged = kind.__name__, "", UNKNOWN
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _within(SECONDS):
                model = built(kind, Path(folder) / name)
                classes: Any = model._factory._model_mapping[type(model.config)]
                shown = str((classes[0] if isinstance(classes, tuple) else classes).__name__)
                judged, why = verdict(model)
        except Exception as error:
            why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:110]}".replace(folder, "")
    return name, shown, judged, why.replace("|", "/")


def main() -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = []
    for name, kind in configurations().items():
        rows.append(row(name, kind))
        sys.stderr.write(" | ".join(rows[-1]) + "\n")
    if sys.argv[1:] == ["code"]:
        sys.stdout.write("\n".join(f'    "{name}",' for name, _, judged, _ in rows if judged == FIRST) + "\n")
        return
    first, whole, unknown = (sum(row[2] == judged for row in rows) for judged in (FIRST, WHOLE, UNKNOWN))
    sizes = {"first": first, "whole": whole, "unknown": unknown}
    sys.stdout.write(_HEAD.format(date=datetime.now(UTC).date(), version=version("transformers"), **sizes))
    for name, shown, judged, why in rows:
        sys.stdout.write(f"| {name} | {shown} | {judged} | {why} |\n")


_HEAD = """# Families of models

The table says how much of a model of each family is loaded for a hook point. `python -m benchmarks.families` printed it
on {date}, with transformers {version}: {first} families are read from the file up to the deepest hook point, {whole} are
loaded whole, and {unknown} could not be built by the script.

A family that is not marked "{FIRST}" is loaded whole. The layers behind the deepest hook point are then dropped
if one small batch gives the same activations without them, to the bit. So a family that is missing from the list costs
memory and time at loading, but never gives a wrong number.

The script builds a small model of each family with random weights, and compares the input and the output of the first 1,
2 and 3 layers, loaded alone, with those of the whole model, to the bit. A family whose code uses the number of layers for
anything but building them is loaded whole even if the comparison held, as another configuration may differ.

| model type | class | loaded | why |
|---|---|---|---|
""".replace("{FIRST}", FIRST)


if __name__ == "__main__":
    main()
