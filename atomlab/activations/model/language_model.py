"""Any Hugging Face causal or encoder language model, by hub name or local folder, loaded only as deep as needed."""

import copy
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging
from transformers.utils.peft_utils import find_adapter_config_file

from atomlab.activations.model.families import FIRST_LAYERS_ONLY
from atomlab.activations.model.fingerprints import of_folder, of_tokenizer
from atomlab.activations.model.sites import HookPoint, find_module, resolve_site
from atomlab.activations.model.weights import check_weights, cut_layers, layer_of

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMMIT = re.compile("[0-9a-f]{40}")
SEPARATING = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox"}


@final
class LanguageModel:
    """A language model that has not been loaded yet: cheap to build, so that a run from the cache never pays for it.

    Causal models are loaded with their language-model head (module paths such as `model.layers.5`), encoders without
    (`encoder.layer.5`). Remote code is never run, and pickled objects are never built.

    Args:
        name: a name on the hub or a local folder.
        revision: commit, tag or branch on the hub.
        dtype: of weights and activations: float32, bfloat16 or float16.
        device: `auto` (CUDA if there is one), or a torch device.

    Raises:
        ValueError: unknown dtype; a device that is not here; a folder whose model cannot be loaded (raised at first use).
        FileNotFoundError: neither a local folder nor a model that the hub gives (raised at first use).
    """

    def __init__(self, name: str, *, revision: str = "main", dtype: str = "bfloat16", device: str = "auto") -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"model.dtype={dtype} is unknown: choose one of {', '.join(_DTYPES)}.")
        self.name, self.revision, self.dtype = name, revision, _DTYPES[dtype]
        self.device = _device(device)

    @cached_property
    def config(self) -> PretrainedConfig:
        if self._is_folder:
            self._refuse_adapter(self.revision)
        with self._errors_of("model"):
            return AutoConfig.from_pretrained(self.name, revision=self.revision, trust_remote_code=False)

    @cached_property
    def tokenizer(self) -> Any:
        with self._errors_of("tokenizer"):
            return AutoTokenizer.from_pretrained(self.name, revision=self._commit, trust_remote_code=False)

    @cached_property
    def tokenizer_fingerprint(self) -> dict[str, Any]:
        """Kind, size and digest of the tokenizer, JSON-serialisable."""
        digest = of_tokenizer(self.tokenizer)
        return {"class": type(self.tokenizer).__name__, "tokens": len(self.tokenizer), "digest": digest}

    @property
    def title(self) -> str:
        """The name to show: a local folder's own name, without its path."""
        return Path(self.name).absolute().name if self._is_folder else self.name

    @property
    def kind(self) -> str:
        """The model family, e.g. `llama`, `gemma2`, `gpt2`, `bert`."""
        return self.config.model_type

    @property
    def num_layers(self) -> int:
        """Layers of the text model; where encoder and decoder differ, of the encoder."""
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

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the activations for given text up to rounding, JSON-serialisable.

        A local folder is known by the content of configuration, weights and tokenizer, wherever it lies; a model of the
        hub by its commit. The device is not part of it.

        Raises:
            ValueError: a revision that cannot be resolved to a commit; an index that names a file that is not there.
        """
        if self._is_folder:
            digest = of_folder(Path(self.name), self.title)
            return {"folder": digest, "tokenizer": self.tokenizer_fingerprint["digest"], "dtype": str(self.dtype)}
        if not _COMMIT.fullmatch(self._commit):
            raise ValueError(
                f"model.revision={self.revision} of {self.name!r} could not be resolved to a commit, so that nobody "
                f"could tell its activations from another version's: give the commit itself as model.revision."
            )
        return {"hub": self.name, "commit": self._commit, "dtype": str(self.dtype)}

    def hook_point(self, site: str, layer: int) -> HookPoint:
        """The hook point of a short name or a module path at a layer (`resolve_site`), which the model is known to have.

        It is looked for in the model's modules as its configuration describes them; no weights are read.

        Raises:
            ValueError: no such site, layer or module.
        """
        point = resolve_site(site, layer, self.kind, self.num_layers if "." not in site else 0, self.title)
        self._check(point)
        return point

    def load(self, points: Sequence[HookPoint] | None = None) -> nn.Module:
        """The model in eval mode, as deep as the hook points need it (whole if None), with the same activations there.

        Families that are known to allow it (`families.FIRST_LAYERS_ONLY`) are read from the file up to the deepest hook
        point. Others are loaded whole, and the layers behind it are dropped only if one small batch shows the same
        activations to the bit.

        Raises:
            ValueError: a hook point that the model lacks; weights that run and are not in the file (`check_weights`).
            FileNotFoundError: neither a local folder nor a model that the hub gives.
        """
        for point in points or ():
            self._check(point)
        model, info = self._read(self._depth(points))
        model = nn.Module.to(model, self.device).eval().requires_grad_(False)
        check_weights(model, info, points, self._some_ids, self.title)
        if points is not None and self.kind not in FIRST_LAYERS_ONLY:
            cut_layers(model, points, self._some_ids)
        return model

    def unembedding(self) -> Tensor | None:
        """(vocabulary, width) float32 on the CPU, what a causal model's head multiplies with; None without a head.

        Raises:
            ValueError: as `load`; also if the file lacks the head.
        """
        model, info = self._read(1 if self.kind in FIRST_LAYERS_ONLY else None)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        if head is None:
            return None
        own = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head.weight}
        of_head = {"missing_keys": own & set(info["missing_keys"]), "unexpected_keys": info["unexpected_keys"]}
        of_head["mismatched_keys"] = {entry for entry in info["mismatched_keys"] if entry[0] in own}
        check_weights(model, of_head, None, self._some_ids, self.title)
        return head.weight.detach().float().cpu()

    @property
    def _is_folder(self) -> bool:
        return Path(self.name).is_dir()

    @property
    def _commit(self) -> str:
        """What the revision stood for when the configuration was read; later reads are of the same."""
        return getattr(self.config, "_commit_hash", None) or self.revision

    @property
    def _factory(self) -> Any:
        return AutoModelForCausalLM if self.is_causal else AutoModel

    @cached_property
    def _skeleton(self) -> nn.Module:
        """The model's modules without weights."""
        with self._errors_of("model"), torch.device("meta"), no_init_weights():
            return self._factory.from_config(copy.deepcopy(self.config), trust_remote_code=False)

    @property
    def _some_ids(self) -> Tensor:
        size = getattr(self.config.get_text_config(), "vocab_size", 256)
        ids = torch.randint(0, size, (2, 11), generator=torch.Generator().manual_seed(0))
        return ids.to(self.device)

    def _check(self, point: HookPoint) -> None:
        if getattr(self.config, "quantization_config", None) is None:  # quantised layers have modules of their own
            find_module(self._skeleton, point)

    def _depth(self, points: Sequence[HookPoint] | None) -> int | None:
        """How many layers to read, None for all; the points of a family on the list lie in its one list of layers."""
        if not points or self.kind not in FIRST_LAYERS_ONLY:
            return None
        places = [layer_of(self._skeleton, point) for point in points]
        inside = [place for place in places if place is not None]
        names = {name for name, _ in inside}
        if len(inside) < len(places) or len(names) > 1:
            return None
        layers = len(list(self._skeleton.get_submodule(names.pop()).children()))
        return max(number for _, number in inside) + 1 if layers == self.num_layers else None

    def _read(self, depth: int | None) -> tuple[nn.Module, dict[str, Any]]:
        """The model with its first `depth` layers, and what transformers says of the weights' names."""
        self._refuse_adapter(self._commit)
        config = copy.deepcopy(self.config)
        if depth is not None:
            _truncate(config.get_text_config(), depth)
        with self._errors_of("weights"), _quiet():
            return self._factory.from_pretrained(
                self.name,
                revision=self._commit,
                config=config,
                dtype=self.dtype,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,  # they are in the report, with those that do not run
                output_loading_info=True,
            )

    def _refuse_adapter(self, revision: str) -> None:
        """transformers loads the base model alone, without a word, where PEFT is not installed."""
        with self._errors_of("model"):
            found = find_adapter_config_file(self.name, revision=revision)
        if found is not None:
            raise ValueError(
                f"{self.title} holds a PEFT adapter beside or instead of a model: merge it into its model first "
                f"(merge_and_unload, then save_pretrained) and give that folder."
            )

    @contextmanager
    def _errors_of(self, part: str) -> Iterator[None]:
        """One true sentence for whatever transformers and the libraries behind it raise."""
        try:
            yield
        except Exception as error:
            if part == "model" and isinstance(error, OSError) and not self._is_folder:
                raise FileNotFoundError(
                    f"The model of {self.name!r} (revision {self.revision}) could not be loaded: it is neither a local "
                    f"model folder nor a model that the hub gives here; check the name, log in if it is gated, or give "
                    f"a folder. ({_reason(error)})"
                ) from error
            raise ValueError(
                f"The {part} of {self.title} could not be loaded because of this: {_reason(error)}."
            ) from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except Exception as error:  # AssertionError where PyTorch was built without it
        raise ValueError(f"model.device={name} is not here: use auto or cpu. ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """The first line of what an error says; a pickle gets a sentence of its own, as PyTorch's advice is to trust it."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    if any(isinstance(cause, pickle.UnpicklingError) for cause in causes):
        return "its file is a pickle with more in it than tensors, which is not opened; save the model as safetensors"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0].rstrip(".:") if lines else "no reason is given"
    told = isinstance(error, OSError | ImportError | ValueError | RuntimeError)
    return said if told else f"{said} ({type(error).__name__})"


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' own report of weights says less than `check_weights`, and of layers left out what is no fault."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _truncate(config: PretrainedConfig, num_layers: int) -> None:
    config.num_hidden_layers = num_layers
    for kinds in ("layer_types", "mlp_layer_types"):  # of each layer: attention (Gemma, Qwen), feed-forward (GLM)
        if getattr(config, kinds, None):
            setattr(config, kinds, getattr(config, kinds)[:num_layers])
