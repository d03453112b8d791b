"""A tiny random language model and a text of random words: what a test needs to start train.py in a second or two.

The model has 3 layers of width 32, 64 positions and 257 words: `<unk>` 0, `<s>` 1, `</s>` 2, `<pad>` 3, `w0` to `w251`
(4 to 255) and one spare. Its tokenizer puts `<s>` in front. The text has 400 documents of 20 to 80 words.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
WORDS = [f"w{i}" for i in range(252)]
CONFIG = LlamaConfig(
    vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=3,
)  # fmt: skip
# Overrides of train.py for a run of 40 steps, in a folder that holds `model/` and `text.txt`.
OPTIONS = [
    "model=hf", "model.name=model", "model.dtype=float32", "corpus=local", "corpus.path=text.txt",
    "corpus@reference=local", "reference.path=text.txt", "activations.tokens.context=32", "activations.tokens.max_tokens=8000",
    "batch_size=128", "steps=40", "sae.expansion=2", "training.sparsity.target=5", "layer=1", "logger=csv",
    "training.calibration.samples=1000", "sample_sizes.measured=500", "sample_sizes.certified=32", "sample_sizes.solved=8",
]  # fmt: skip


def tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """One token a word; `<s>` in front of a text."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words, "spare"])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_model(folder: Path, config: PretrainedConfig = CONFIG, seed: int = 0) -> torch.nn.Module:
    """Writes weights, configuration and tokenizer; returns the model."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # larger weights, so that a wrong layer differs by more than rounding
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def save_text(file: Path, seed: int = 0, documents: int = 400) -> None:
    """Documents of random words, parted by blank lines."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(20, 81, (documents,), generator=generator).tolist()
    words = (torch.randint(0, len(WORDS), (length,), generator=generator).tolist() for length in lengths)
    file.write_text("\n\n".join(" ".join(WORDS[number] for number in line) for line in words), encoding="utf-8")


def workplace(folder: Path) -> Path:
    """A folder with `model/` and `text.txt`, in which `OPTIONS` run."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model")
    save_text(folder / "text.txt")
    return folder
