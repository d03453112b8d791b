"""A causal or encoder language model of Hugging Face, from the hub or a local folder, loaded only as deep as needed."""

import copy
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from atomlab.activations.model.model_digests import model_folder_digest, tokenizer_digest
from atomlab.activations.model.placement import Placement
from atomlab.activations.model.sites import HookPoint, find_module, resolve_site
from atomlab.activations.model.weight_checks import LoadingReport, check_weights, drop_deeper_layers, layer_of

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMMIT = re.compile("[0-9a-f]{40}")
# Families for which a test shows that packed documents whose positions start anew do not see one another.
SEPARATES_DOCUMENTS = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox"}


@final
class LanguageModel:
    """A language model, whose configuration, tokenizer and weights are loaded when they are first used.

    It costs nothing to build, so a run whose activations are in the cache never loads the model. Causal models are
    loaded with their language-model head (their modules have paths such as `model.layers.5`), encoders without
    (`encoder.layer.5`). No code from the hub is run, and no pickled object but tensors is built.

    Args:
        name: a name on the hub, or a local folder.
        revision: commit, tag or branch on the hub.
        dtype: number format of weights and activations: float32, bfloat16 or float16.
        device: a torch device, or `auto` for CUDA if there is one and the CPU otherwise.
        device_map: for a model that is larger than one GPU: how transformers spreads its layers over GPUs, memory and disk.
            `auto` fills the GPUs first; a mapping gives modules their devices, such as `{"": "cpu"}`. It needs the package
            accelerate, and the first module on `device`. None: the whole model lies on `device`.
        offload_folder: where the layers go that `device_map` puts on the disk. Files there are written over.

    Raises:
        ValueError: an unknown dtype, or a device that this machine lacks. At first use: a folder whose model cannot be
            loaded.
        FileNotFoundError: at first use: neither a local folder nor a model that the hub gives.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str = "main",
        dtype: str = "bfloat16",
        device: str = "auto",
        device_map: str | Mapping[str, str | int] | None = None,
        offload_folder: str | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"model.dtype={dtype} is unknown: choose one of {', '.join(_DTYPES)}.")
        self.name, self.revision, self.dtype = name, revision, _DTYPES[dtype]
        self.placement = Placement.of(device, device_map, offload_folder)

    @cached_property
    def config(self) -> PretrainedConfig:
        """The configuration as transformers reads it. Raises as the class."""
        if self._is_folder:
            self._refuse_adapter(self.revision)
        with self._one_sentence_errors("model"):
            return AutoConfig.from_pretrained(self.name, revision=self.revision, trust_remote_code=False)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers reads it. Raises as the class."""
        with self._one_sentence_errors("tokenizer"):
            return AutoTokenizer.from_pretrained(self.name, revision=self._commit, trust_remote_code=False)

    @cached_property
    def tokenizer_fingerprint(self) -> dict[str, Any]:
        """Class, number of tokens and digest (`tokenizer_digest`) of the tokenizer, JSON-serialisable."""
        digest = tokenizer_digest(self.tokenizer)
        return {"class": type(self.tokenizer).__name__, "tokens": len(self.tokenizer), "digest": digest}

    @property
    def device(self) -> torch.device:
        """The device that tokens are given to."""
        return self.placement.device

    @property
    def title(self) -> str:
        """The name to show: the hub's name, or a local folder's own name without its path."""
        return Path(self.name).absolute().name if self._is_folder else self.name

    @property
    def family(self) -> str:
        """The family of the model, as transformers names it, such as `llama`, `gemma2`, `gpt2` or `bert`."""
        return self.config.model_type

    @property
    def num_layers(self) -> int:
        """Number of layers of the text model; where encoder and decoder differ, of the encoder."""
        return self.config.get_text_config().num_hidden_layers

    @property
    def is_causal(self) -> bool:
        """Whether transformers has a language-model head that predicts the next token, and none for masked tokens."""
        known = type(self.config)
        return known in MODEL_FOR_CAUSAL_LM_MAPPING and known not in MODEL_FOR_MASKED_LM_MAPPING

    @property
    def separates_documents(self) -> bool:
        """Whether documents that are packed into one sequence, with positions that start anew, see nothing of one
        another; false also where this has not been tested.
        """
        return self.family in SEPARATES_DOCUMENTS

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that determines the activations for a given text, up to rounding; JSON-serialisable.

        A local folder is identified by the content of its configuration, weights and tokenizer, wherever it lies, and
        a model of the hub by its commit. The device is not part of it.

        Raises:
            ValueError: the revision cannot be resolved to a commit, or the index of the weights names a file that is
                not there.
        """
        if self._is_folder:
            digest = model_folder_digest(Path(self.name), self.title)
            return {"folder": digest, "tokenizer": self.tokenizer_fingerprint["digest"], "dtype": str(self.dtype)}
        if not _COMMIT.fullmatch(self._commit):
            raise ValueError(
                f"model.revision={self.revision} of {self.name!r} could not be resolved to a commit, so that nobody "
                f"could tell its activations from another version's: give the commit itself as model.revision."
            )
        return {"hub": self.name, "commit": self._commit, "dtype": str(self.dtype)}

    def hook_point(self, site: str, layer: int) -> HookPoint:
        """Finds the hook point of a site at a layer, and checks that the model has it.

        The modules are built from the configuration; no weights are read. A quantised model has modules of its own,
        which are not checked until it runs.

        Args:
            site: a short name such as `resid_post`, or the path of a hook point, in which `{layer}` stands for the
                layer (`resolve_site`).
            layer: number of the layer, counted from 0.

        Returns:
            The module's path, and whether its input or its output is meant.

        Raises:
            ValueError: the model has no such site, layer or module.
        """
        point = resolve_site(site, layer, self.family, self.num_layers if "." not in site else 0, self.title)
        self._check_exists(point)
        return point

    def load(self, points: Sequence[HookPoint] | None = None) -> nn.Module:
        """Loads the model with as many layers as the hook points need.

        The families of `FIRST_LAYERS_ONLY` are read from the file up to the deepest hook point. Others are loaded
        whole, and deeper layers are dropped if one small batch shows the same activations to the bit.

        Args:
            points: the hook points, whose activations are exactly those of the whole model; None loads all layers.

        Returns:
            The model in eval mode on its device and in its dtype, with parameters that need no gradient.

        Raises:
            ValueError: the model lacks a hook point, or weights that run are not in the file (`check_weights`).
            FileNotFoundError: neither a local folder nor a model that the hub gives.

        Cost: one read of the weights; for other families than those, up to two forward passes over 22 tokens. One
        more if the weights of the file and of the model differ in a name or shape.
        """
        for point in points or ():
            self._check_exists(point)
        model, report = self._read(self._depth(points), self.placement)
        model = self.placement.place(model, self.title).eval().requires_grad_(False)
        check_weights(model, report, points, self._trial_ids, self.title)
        if points is not None and self.family not in FIRST_LAYERS_ONLY:
            drop_deeper_layers(model, points, self._trial_ids)
        return model

    def unembedding(self) -> Tensor | None:
        """Returns the matrix with which the language-model head turns a vector into logits.

        Returns:
            (vocabulary, width) in float32 on the CPU; None for a model without a head.

        Raises:
            ValueError: as `load`; also if the file lacks the head.

        Cost: one read of the weights, of the first layer alone where the family allows it.
        """
        model, report = self._read(1 if self.family in FIRST_LAYERS_ONLY else None)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        if head is None:
            return None
        own = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head.weight}
        check_weights(model, report.about(own), None, self._trial_ids, self.title)
        return head.weight.detach().float().cpu()

    @property
    def _is_folder(self) -> bool:
        return Path(self.name).is_dir()

    @property
    def _commit(self) -> str:
        """The commit that the revision meant when the configuration was read; later reads are of the same commit."""
        return getattr(self.config, "_commit_hash", None) or self.revision

    @property
    def _factory(self) -> Any:
        return AutoModelForCausalLM if self.is_causal else AutoModel

    @cached_property
    def _skeleton(self) -> nn.Module:
        """The model's modules without weights."""
        with self._one_sentence_errors("model"), torch.device("meta"), no_init_weights():
            return self._factory.from_config(copy.deepcopy(self.config), trust_remote_code=False)

    @property
    def _trial_ids(self) -> Tensor:
        """Random token ids (2, 11) for the passes that find out which modules run."""
        size = getattr(self.config.get_text_config(), "vocab_size", 256)
        ids = torch.randint(0, size, (2, 11), generator=torch.Generator().manual_seed(0))
        return ids.to(self.device)

    def _check_exists(self, point: HookPoint) -> None:
        if getattr(self.config, "quantization_config", None) is None:  # quantised layers have modules of their own
            find_module(self._skeleton, point)

    def _depth(self, points: Sequence[HookPoint] | None) -> int | None:
        """How many of the first layers to read from the file; None for all.

        All are read unless every hook point lies in one list of layers, which has the configuration's length.
        """
        if not points or self.family not in FIRST_LAYERS_ONLY:
            return None
        found = [layer_of(self._skeleton, point) for point in points]
        inside = [layer for layer in found if layer is not None]
        names = {name for name, _ in inside}
        if len(inside) < len(found) or len(names) > 1:
            return None
        layers = len(list(self._skeleton.get_submodule(names.pop()).children()))
        return max(number for _, number in inside) + 1 if layers == self.num_layers else None

    def _read(self, depth: int | None, placement: Placement | None = None) -> tuple[nn.Module, LoadingReport]:
        """The model with its first `depth` layers (None: all), in memory or placed, and how the weights of the file fit it."""
        self._refuse_adapter(self._commit)
        config = copy.deepcopy(self.config)
        if depth is not None:
            _keep_first_layers(config.get_text_config(), depth)
        with self._one_sentence_errors("weights"), no_loading_messages(), warnings.catch_warnings():
            if depth is not None:  # a mapping of all layers names those that are left out too
                warnings.filterwarnings("ignore", "The following device_map keys do not match")
            model, info = self._factory.from_pretrained(
                self.name,
                revision=self._commit,
                config=config,
                dtype=self.dtype,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,  # they are in the report, with those that do not run
                output_loading_info=True,
                **(placement.loading_options if placement else {}),
            )
        return model, LoadingReport.of(info)

    def _refuse_adapter(self, revision: str) -> None:
        """Raises ValueError for a PEFT adapter: without PEFT, transformers would silently load the base model alone."""
        with self._one_sentence_errors("model"):
            found = find_adapter_config_file(self.name, revision=revision)
        if found is not None:
            raise ValueError(
                f"{self.title} holds a PEFT adapter beside or instead of a model: merge it into its model first "
                f"(merge_and_unload, then save_pretrained) and give that folder."
            )

    @contextmanager
    def _one_sentence_errors(self, part: str) -> Iterator[None]:
        """Turns whatever transformers and the libraries behind it raise into one sentence about a part of the model."""
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


def _reason(error: BaseException) -> str:
    """The first line of an error's message.

    A pickle gets a sentence of its own, as PyTorch's message advises to trust the file.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    if any(isinstance(cause, pickle.UnpicklingError) for cause in causes):
        return "its file is a pickle with more in it than tensors, which is not opened; save the model as safetensors"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0].rstrip(".:") if lines else "no reason is given"
    is_sentence = isinstance(error, OSError | ImportError | ValueError | RuntimeError)  # others may be a bare name
    return message if is_sentence else f"{message} ({type(error).__name__})"


@contextmanager
def no_loading_messages() -> Iterator[None]:
    """Silences transformers: `check_weights` says more of missing weights, and layers left out are no fault."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _keep_first_layers(config: PretrainedConfig, num_layers: int) -> None:
    config.num_hidden_layers = num_layers
    for name in ("layer_types", "mlp_layer_types"):  # one entry a layer: attention (Gemma, Qwen), feed-forward (GLM)
        if getattr(config, name, None):
            setattr(config, name, getattr(config, name)[:num_layers])
