"""Tiny random models of every family, through the same code path as real ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from atomlab.activations.corpora.local import LocalText

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GATED = SIZES | {
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "llama": LlamaConfig(**GATED),
    "mistral": MistralConfig(**GATED),
    "qwen2": Qwen2Config(**{k: v for k, v in GATED.items() if k != "head_dim"}),
    "qwen3": Qwen3Config(**GATED),
    "gemma2": Gemma2Config(**GATED),
    "gemma3_text": Gemma3TextConfig(**GATED),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=48, bos_token_id=1, eos_token_id=2),
    "bert": BertConfig(**SIZES, intermediate_size=48),
}
WORDS = ["[UNK]", "<s>", "</s>", *(f"w{i}" for i in range(61))]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved folder (weights, configuration, tokenizer) for each family."""
    folders = {}
    for name, config in FAMILIES.items():
        torch.manual_seed(0)
        model = (AutoModel if name == "bert" else AutoModelForCausalLM).from_config(config)
        with torch.no_grad():  # larger weights, so that wrong sites differ by more than rounding
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        folders[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folders[name])
        words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folders[name])
    return folders


@pytest.fixture
def text(tmp_path: Path) -> LocalText:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 60, (60, 40), generator=generator).tolist()
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(f"w{i}" for i in line) for line in words))
    return LocalText(str(tmp_path / "text.txt"))


def in_own_process(script: str, *arguments: object) -> str:
    """What a script of this folder prints; one that forks must not do so beside pytest's threads."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, here / script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(here.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
