"""Any Hugging Face causal or encoder language model, by hub name or local folder, loaded only as deep as needed."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.utils import logging as transformers_logging

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SEPARATING = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox"}


@final
class LanguageModel:
    """A language model that has not been loaded yet: cheap to build, so that a run from the cache never pays for it.

    Causal models are loaded with their language-model head (module paths such as `model.layers.5`), encoders without
    (`encoder.layer.5`). Remote code is never run; weights are read from safetensors.

    Args:
        name: a name on the hub or a local folder.
        revision: commit, tag or branch on the hub.
        dtype: of weights and activations: float32, bfloat16 or float16.
        device: `auto` (CUDA if there is one), or a torch device.

    Raises:
        ValueError: unknown dtype.
        FileNotFoundError: neither a local folder nor a model that the hub gives (raised at first use).
    """

    def __init__(self, name: str, *, revision: str = "main", dtype: str = "bfloat16", device: str = "auto") -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"model.dtype={dtype} is unknown: choose one of {', '.join(_DTYPES)}.")
        self.name, self.revision, self.dtype = name, revision, _DTYPES[dtype]
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)

    @cached_property
    def config(self) -> PretrainedConfig:
        try:
            return AutoConfig.from_pretrained(self.name, revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise self._missing("model", error) from error

    @cached_property
    def tokenizer(self) -> Any:
        try:
            return AutoTokenizer.from_pretrained(self.name, revision=self.revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise self._missing("tokenizer", error) from error

    @property
    def tokenizer_fingerprint(self) -> dict[str, Any]:
        """Kind, size and digest of the tokenizer, JSON-serialisable."""
        digest = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]
        return {"class": type(self.tokenizer).__name__, "tokens": len(self.tokenizer), "digest": digest}

    @property
    def title(self) -> str:
        """The name to show: a local folder's own name, without its path."""
        return Path(self.name).name if Path(self.name).is_dir() else self.name

    @property
    def kind(self) -> str:
        """The model family, e.g. `llama`, `gemma2`, `gpt2`, `bert`."""
        return self.config.model_type

    @property
    def num_layers(self) -> int:
        return self.config.get_text_config().num_hidden_layers

    @property
    def is_causal(self) -> bool:
        known = type(self.config)
        return known in MODEL_FOR_CAUSAL_LM_MAPPING and known not in MODEL_FOR_MASKED_LM_MAPPING

    @property
    def separates_documents(self) -> bool:
        """Whether packed documents whose positions start anew do not see one another: the families for which a test
        shows it.
        """
        return self.kind in SEPARATING

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the activations for given token ids, JSON-serialisable; the path is not part of
        it.
        """
        if Path(self.name).is_dir():
            origin = {"folder": _folder_digest(Path(self.name))}
        else:
            commit = getattr(self.config, "_commit_hash", None)
            origin = {"hub": self.name, "commit": commit or self.revision}
        return origin | {"dtype": str(self.dtype), "device": self.device.type}

    def load(self, points=None) -> nn.Module:
        """INTERIM"""
        depths = [None] if points is None else [point.num_layers for point in points]
        num_layers = None if None in depths else max(d for d in depths if d)
        config = AutoConfig.from_pretrained(self.name, revision=self.revision, trust_remote_code=False)
        if num_layers is not None:
            _truncate(config.get_text_config(), num_layers)
        factory = AutoModelForCausalLM if self.is_causal else AutoModel
        level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()  # the weights of the layers left out are reported as a fault
        transformers_logging.disable_progress_bar()
        try:
            model = factory.from_pretrained(
                self.name, revision=self.revision, config=config, dtype=self.dtype, trust_remote_code=False
            )
        except OSError as error:
            raise self._missing("weights", error) from error
        finally:
            transformers_logging.set_verbosity(level)
            if bars:
                transformers_logging.enable_progress_bar()
        return nn.Module.to(model, self.device).eval().requires_grad_(False)

    def _missing(self, part: str, error: Exception) -> FileNotFoundError:
        reason = str(error).strip().splitlines()[0]
        return FileNotFoundError(
            f"The {part} of {self.name!r} (revision {self.revision}) could not be loaded: it is neither a local model folder nor "
            f"a model that the hub gives here; check the name, log in if it is gated, or give a folder. ({reason})"
        )


def _truncate(config: PretrainedConfig, num_layers: int) -> None:
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):  # attention kind of each layer (Gemma, Qwen)
        config.layer_types = config.layer_types[:num_layers]


def _folder_digest(folder: Path) -> str:
    """Of the text of configuration and tokenizer and each weight file's name, size and time: a changed file changes it."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".txt", ".model"}:  # also vocab.txt, merges.txt and SentencePiece's
            digest.update(file.name.encode() + file.read_bytes())
        elif file.suffix in {".safetensors", ".bin"}:
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
