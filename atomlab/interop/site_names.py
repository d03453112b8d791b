"""Names of sites: in TransformerLens, which SAELens, SAEBench and Neuronpedia use, in the files of others, and here."""

import re
from collections.abc import Sequence
from contextlib import suppress

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint, resolve_site

# Without hook_mlp_in, which lies before the norm, where mlp_in lies after it.
TRANSFORMER_LENS = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
    "attn_z": "attn.hook_z",
    "mlp_hidden": "mlp.hook_post",
}
SHORT_NAMES = {name: site for site, name in TRANSFORMER_LENS.items()}
_RESIDUAL = ("resid_pre", "resid_post")  # which a path of any family means alike
_LENS = re.compile(r"blocks\.(\d+)\.(\S*hook_\S+)")
# Families, as transformers names them, by what the names of their models contain.
_FAMILIES = {
    "gemma": ("gemma2", "gemma3_text", "gemma3"),
    "gpt2": ("gpt2",),
    "llama": ("llama",),
    "mistral": ("mistral",),
    "pythia": ("gpt_neox",),
    "qwen": ("qwen3",),
    "smollm": ("llama",),
}
# Where the layers' own model lies inside the whole one: sparsify names modules inside it.
_BASES = ("model", "transformer", "gpt_neox", "model.language_model")


def families_of(model: str | None) -> tuple[str, ...]:
    """Returns the families that a model of this name may be of; none if the name does not tell.

    >>> families_of("HuggingFaceTB/SmolLM2-135M")
    ('llama',)
    """
    return next((families for word, families in _FAMILIES.items() if word in (model or "").lower()), ())


def known_site(site: str, families: Sequence[str]) -> tuple[HookPoint, str] | None:
    """Finds what the path of a module means.

    Args:
        site: `<module path>`, with or without `.input` or `.output`, from the whole model or from its base model.
        families: of the model. Without any, only a path of the residual stream is known, and the module that is returned
            is of one of the families that have it.

    Returns:
        The hook point in a model of the first family that has it, and TransformerLens's name, `blocks.<layer>.<site>`;
        None if it has none.
    """
    path = _with_side(site)
    if (number := re.search(r"\.(\d+)\.", path)) is None:
        return None
    layer = int(number[1])
    for family in families or ("llama", "gpt2", "gpt_neox", "gemma3"):
        for short in TRANSFORMER_LENS if families else _RESIDUAL:
            with suppress(ValueError):  # the family has no short names, or not this one
                point = resolve_site(short, layer, family, layer + 1)
                if f".{point}".endswith(f".{path}"):
                    return point, f"blocks.{layer}.{TRANSFORMER_LENS[short]}"
    return None


def transformer_lens_name(site: str, families: Sequence[str]) -> str | None:
    """Returns TransformerLens's name of a site; None if it has none.

    Args:
        site: that name itself, or a path as `known_site` takes it.
        families: of the model, as `known_site` takes them.

    >>> transformer_lens_name("model.layers.12.output", families_of("google/gemma-2-2b"))
    'blocks.12.hook_resid_post'
    """
    if _LENS.fullmatch(site):
        return site
    found = known_site(site, families)
    return None if found is None else found[1]


def hook_point_of(site: str, model: LanguageModel) -> HookPoint:
    """Finds the module of a model that a site means, in whatever notation files have it.

    Args:
        site: a name of TransformerLens, or a path of a module as `known_site` takes it. A path without a side means the output.
        model: the language model. Its weights are not read.

    Returns:
        The hook point.

    Raises:
        ValueError: the model has no such site.
    """
    if (lens := _LENS.fullmatch(site)) and lens[2] in SHORT_NAMES:
        return model.hook_point(SHORT_NAMES[lens[2]], int(lens[1]))
    path = _with_side(site)
    inside = (f"{base}.{path.removeprefix('model.')}" for base in _BASES)
    for candidate in () if lens else (path, *inside):
        with suppress(ValueError):
            return model.hook_point(candidate, 0)
    raise ValueError(
        f"{model.title} has no site {site!r}: expected the path of a module of it, such as model.layers.5.output, or one of "
        f"{', '.join(f'blocks.5.{name}' for name in SHORT_NAMES)}."
    )


def _with_side(site: str) -> str:
    return site if site.endswith((".input", ".output")) else f"{site}.output"
