"""Hook points, at which activations are read, and the field's short names for them.

A hook point is the input or the output of a module, written `<module path>.input` or `<module path>.output`. Several
families of models have short names for the usual ones. Layers are counted from 0 (the paper counts from 1):

| site | activations |
|---|---|
| resid_pre, resid_post | residual stream before and after the layer |
| mlp_in | what the MLP reads (after its norm) |
| mlp_hidden | the MLP's neurons: input of the down-projection |
| mlp_out | what the MLP adds to the residual stream (in Gemma after its extra norm) |
| attn_z | the outputs of all heads, concatenated: input of the output projection |
| attn_out | what attention adds to the residual stream (in Gemma after its extra norm) |
"""

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

_LLAMA = {
    "resid_pre": "model.layers.{layer}.input",
    "resid_post": "model.layers.{layer}.output",
    "mlp_in": "model.layers.{layer}.mlp.input",
    "mlp_hidden": "model.layers.{layer}.mlp.down_proj.input",
    "mlp_out": "model.layers.{layer}.mlp.output",
    "attn_z": "model.layers.{layer}.self_attn.o_proj.input",
    "attn_out": "model.layers.{layer}.self_attn.output",
}
_GEMMA = _LLAMA | {
    "mlp_out": "model.layers.{layer}.post_feedforward_layernorm.output",
    "attn_out": "model.layers.{layer}.post_attention_layernorm.output",
}
_GPT2 = {
    "resid_pre": "transformer.h.{layer}.input",
    "resid_post": "transformer.h.{layer}.output",
    "mlp_in": "transformer.h.{layer}.mlp.input",
    "mlp_hidden": "transformer.h.{layer}.mlp.c_proj.input",
    "mlp_out": "transformer.h.{layer}.mlp.output",
    "attn_z": "transformer.h.{layer}.attn.c_proj.input",
    "attn_out": "transformer.h.{layer}.attn.output",
}
_GPT_NEOX = {
    "resid_pre": "gpt_neox.layers.{layer}.input",
    "resid_post": "gpt_neox.layers.{layer}.output",
    "mlp_in": "gpt_neox.layers.{layer}.mlp.input",
    "mlp_hidden": "gpt_neox.layers.{layer}.mlp.dense_4h_to_h.input",
    "mlp_out": "gpt_neox.layers.{layer}.mlp.output",
    "attn_z": "gpt_neox.layers.{layer}.attention.dense.input",
    "attn_out": "gpt_neox.layers.{layer}.attention.output",
}
_BERT = {
    "resid_pre": "encoder.layer.{layer}.input",
    "resid_post": "encoder.layer.{layer}.output",
    "mlp_in": "encoder.layer.{layer}.intermediate.input",
    "mlp_hidden": "encoder.layer.{layer}.output.dense.input",
    "mlp_out": "encoder.layer.{layer}.output.dense.output",
    "attn_z": "encoder.layer.{layer}.attention.output.dense.input",
    "attn_out": "encoder.layer.{layer}.attention.output.dense.output",
}
_FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gemma3": {site: path.replace("model.", "model.language_model.", 1) for site, path in _GEMMA.items()},
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "bert": _BERT,
    "roberta": _BERT,
}
SITES = tuple(_LLAMA)


@dataclass(frozen=True)
class HookPoint:
    """The input or the output of one module of a model.

    Attributes:
        module: path of the module, as `model.get_submodule` takes it.
        side: whether the module's input or its output is meant.

    >>> HookPoint.parse("model.layers.5.mlp.down_proj.input")
    HookPoint(module='model.layers.5.mlp.down_proj', side='input')
    """

    module: str
    side: Literal["input", "output"]

    @classmethod
    def parse(cls, path: str) -> "HookPoint":
        """Makes a hook point of its path.

        Args:
            path: `<module path>.input` or `<module path>.output`.

        Returns:
            The hook point; whether a model has the module is not checked.

        Raises:
            ValueError: the path does not end in `.input` or `.output`, or has no module in front of it.
        """
        module, _, side = path.rpartition(".")
        if module and (side == "input" or side == "output"):
            return cls(module, side)
        raise ValueError(
            f"The site {path!r} is not of the form '<module path>.input' or '<module path>.output': give the path of a "
            f"module and its side."
        )

    def __str__(self) -> str:
        return f"{self.module}.{self.side}"

    @property
    def num_layers(self) -> int | None:
        """How many of the model's layers a forward pass needs up to this hook point; None if its path has no number.

        >>> HookPoint.parse("model.layers.5.mlp.input").num_layers
        6
        """
        found = re.search(r"\.(\d+)(?:\.|$)", self.module)
        return int(found[1]) + 1 if found else None


def resolve_site(site: str, layer: int, family: str, num_layers: int, model: str = "the model") -> HookPoint:
    """Finds the hook point that a short name or a path means at one layer.

    Args:
        site: one of `SITES`, or the path of a hook point, in which `{layer}` stands for the number of the layer.
        layer: number of the layer, counted from 0.
        family: the model's family, as transformers names it, such as `llama`.
        num_layers: number of layers of the model; read for short names only.
        model: the model's name, for error messages.

    Returns:
        The hook point. Whether the model has the module is not checked here but by `find_module`;
        `LanguageModel.hook_point` does both.

    Raises:
        ValueError: the site is unknown, the layer does not exist, the family has no short names, or the path is not
            one of a hook point.
    """
    if "." in site:
        return HookPoint.parse(site.replace("{layer}", str(layer)))
    if site not in SITES:
        raise ValueError(
            f"site={site} is unknown: choose one of {', '.join(SITES)}, or a path '<module path>.input|output'."
        )
    if not 0 <= layer < num_layers:
        raise ValueError(
            f"layer={layer} does not exist: {model} has {num_layers} layers, counted from 0 to {num_layers - 1}."
        )
    if family not in _FAMILIES:
        raise ValueError(
            f"Models of type {family!r} have no short site names yet (known: {', '.join(_FAMILIES)}): "
            f"give the module itself, site=module \"site.name='<module path>.output'\" (or .input)."
        )
    return HookPoint.parse(_FAMILIES[family][site].format(layer=layer))


def find_module(model: nn.Module, point: HookPoint) -> nn.Module:
    """Finds the module of a hook point.

    Args:
        model: the model, with or without weights.
        point: the hook point.

    Returns:
        The module of the model itself, no copy.

    Raises:
        ValueError: the model has no such module; the message says how far the path leads and what it finds there.
    """
    module, found = model, []
    for part in point.module.split("."):
        children = dict(module.named_children())
        if part not in children:
            at = ".".join(found) or "the model"
            if isinstance(module, nn.ModuleList) and re.fullmatch(r"-?\d+", part):
                raise ValueError(
                    f"No module {point.module!r}: layer {part} does not exist, {at} has {len(module)}, counted from 0 to "
                    f"{len(module) - 1}."
                )
            raise ValueError(
                f"No module {point.module!r}: {at} has no {part!r} but {', '.join(children) or 'nothing below it'}."
            )
        module, found = children[part], [*found, part]
    return module


def first_tensor(value: object) -> Tensor:
    """Finds the activation among what a module takes or returns.

    Args:
        value: a tensor, or a tuple or list that starts with one.

    Returns:
        The tensor, or the first one.

    Raises:
        ValueError: the value is neither.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list) and value and isinstance(value[0], Tensor):
        return value[0]
    raise ValueError(f"A module passed {type(value).__name__} where a tensor was expected: choose another site.")
