"""What SAELens, SAEBench and Neuronpedia look up beside the weights of an SAE, in their names."""

from collections.abc import Sequence
from typing import Any

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.smollm2 import HUB_NAMES
from atomlab.activations.tokens.special_tokens import frame
from atomlab.interop.site_names import families_of, known_site, transformer_lens_name
from atomlab.sae import Origin

_HUGGING_FACE = "AutoModelForCausalLM"  # SAELens then hooks modules of transformers by their paths
_TRANSFORMER_LENS = "HookedTransformer"


def metadata_of_data(data: ActivationDataModule) -> dict[str, Any]:
    """Describes the activations that an SAE was trained on, for `metadata` in a SAELens cfg.json.

    | key | value |
    |---|---|
    | `model_name` | the hub's name of the model, or a local folder's own name |
    | `hook_name` | TransformerLens's name of the site if it has one; otherwise the module's path |
    | `model_class_name` | `HookedTransformer` with a TransformerLens name, `AutoModelForCausalLM` with a path |
    | `hf_hook_name` | `<module path>.input` or `.output` of transformers, as in Gemma Scope 2 |
    | `context_size`, `prepend_bos` | of the token sequences |
    | `seqpos_slice`, `exclude_special_tokens` | which positions were left out |
    | `dataset_path` | the hub's name of the corpus; null if it lies on this machine |

    Args:
        data: the activations; their tokenizer is loaded, the model is not.

    Returns:
        The entries, which JSON can hold.
    """
    point, rules = data.point, data.harvests.rules
    tokenizer = data.model.tokenizer
    lens = transformer_lens_name(str(point), [data.model.family])
    hub = data.corpus.fingerprint.get("hub")
    dataset = hub.get("name") if isinstance(hub, dict) and hub.get("commit") else None
    return {
        "model_name": hub_name(data.model),
        "model_class_name": _TRANSFORMER_LENS if lens else _HUGGING_FACE,
        "model_from_pretrained_kwargs": {},
        "hook_name": lens or str(point).removesuffix(".output"),
        "hook_head_index": None,
        "hf_hook_name": str(point),
        "context_size": rules.context,
        "prepend_bos": tokenizer.bos_token_id is not None and tokenizer.bos_token_id in frame(tokenizer).prefix,
        "seqpos_slice": [1, None] if rules.drop_first else [None],
        "exclude_special_tokens": rules.drop_special,
        "dataset_path": dataset,
    }


def metadata_of_origin(origin: Origin | None) -> dict[str, Any]:
    """Describes where an SAE that was read from files comes from, for `metadata` in a SAELens cfg.json.

    A site that TransformerLens has gets its name, since SAELens and SAEBench look it up so. Names that a SAELens folder had stay.

    Args:
        origin: of the SAE; None gives nothing.

    Returns:
        What the files had of it (`Origin.details`), its model and its site.
    """
    if origin is None:
        return {}
    details = {key: value for key, value in origin.details.items() if not key.startswith("sae_lens_")}
    named = {"model_name": origin.model} if origin.model else {}
    if origin.site:
        named |= _names_of_site(origin.site, families_of(origin.model))
    return named | details | {"training_architecture": origin.architecture, "source_format": origin.format}


def _names_of_site(site: str, families: Sequence[str]) -> dict[str, Any]:
    lens = transformer_lens_name(site, families)
    stated = {"hook_name": lens or site.removesuffix(".output")}
    if lens or site.endswith((".input", ".output")):
        stated |= {"model_class_name": _TRANSFORMER_LENS if lens else _HUGGING_FACE}
    if site.endswith((".input", ".output")):
        found = known_site(site, families) if families else None
        stated |= {"hf_hook_name": str(found[0]) if found else site}
    return stated


def hub_name(model: LanguageModel) -> str:
    """Returns the hub's name of a language model, or the own name of a local folder; no path of this machine."""
    return HUB_NAMES.get(model.title, model.title)
