"""Reads SAEs that are one PyTorch file, recognised by the names of their tensors: OpenAI, Goodfire and Qwen Scope."""

import re
from functools import partial
from pathlib import Path

import torch

from atomlab.interop.formats.found import Found, cannot_hold, first_match, names_above
from atomlab.interop.layout import Stored, is_of_layout
from atomlab.interop.sae_from_tensors import read_weights, threshold_sae, top_k_sae
from atomlab.interop.tensor_file import TensorFile, open_torch
from atomlab.sae import SAE, Origin

_OPENAI = {
    "W_enc": Stored("encoder.weight", transposed=True),
    "b_enc": Stored("latent_bias"),
    "W_dec": Stored("decoder.weight", transposed=True),
    "b_dec": Stored("pre_bias"),
}
_GOODFIRE = {
    "W_enc": Stored("encoder_linear.weight", transposed=True),
    "b_enc": Stored("encoder_linear.bias"),
    "W_dec": Stored("decoder_linear.weight", transposed=True),
    "b_dec": Stored("decoder_linear.bias"),
}
_QWEN = {
    "W_enc": Stored("W_enc", transposed=True),
    "b_enc": Stored("b_enc"),
    "W_dec": Stored("W_dec", transposed=True),
    "b_dec": Stored("b_dec"),
}
_QWEN_REPOSITORY = re.compile(r"SAE-Res-(.+)-W\d+K-L0_(\d+)(?:[-_].*)?")
_OWNERS = {"Llama": "meta-llama", "Qwen": "Qwen", "gemma": "google"}


def find(path: Path) -> Found | None:
    """Finds an SAE in one file of `torch.save`.

    - OpenAI: f = relu(z), z = (x − b_dec) W_enc + b_enc. Those with TopK are refused, since they read each vector with mean 0
      and standard deviation 1.
    - Goodfire: f = relu(z), z = x W_enc + b_enc. The file's name says model and layer (`Llama-3.1-8B-Instruct-SAE-l19.pth`).
    - Qwen Scope: TopK of z = x W_enc + b_enc. Its k stands in the name of the repository alone (`...-W32K-L0_50`), which must
      be in the path; the file's name says the layer (`layer0.sae.pt`).

    Args:
        path: a `.pt` or `.pth` file.

    Returns:
        The SAE, which reads raw activations; None if the path is no such file.

    Raises:
        ValueError: the file is damaged, holds pickled objects or lacks one tensor of its format, or its SAE cannot be held.
    """
    if path.suffix not in (".pt", ".pth") or not path.exists():
        return None
    file = open_torch(path)
    kinds = (("OpenAI", _OPENAI, _openai), ("Goodfire", _GOODFIRE, _goodfire), ("Qwen Scope", _QWEN, _qwen))
    for format, layout, of_kind in kinds:
        if is_of_layout(file, layout, format):
            return of_kind(file)
    return None


def _openai(file: TensorFile) -> Found:
    activation = str(file.extra.get("activation", "ReLU"))
    if activation != "ReLU":
        remedy = "its inputs are scaled to mean 0 and standard deviation 1 one by one; only those with ReLU can be read"
        raise cannot_hold(file.path, "an OpenAI SAE", f"the activation {activation}", remedy)
    state = [key for key in file.shapes if key.startswith(("stats_last_nonzero", "activation_state_dict/"))]
    origin = Origin("OpenAI", activation)
    return Found(file.path, origin, partial(_relu, file, _OPENAI, origin, True, state))


def _goodfire(file: TensorFile) -> Found:
    named = re.fullmatch(r"(.+)-SAE-l(\d+)", file.path.stem)
    model, site = (named[1], f"model.layers.{named[2]}.output") if named else (None, None)
    owner = next((owner for start, owner in _OWNERS.items() if model and model.startswith(start)), None)
    origin = Origin("Goodfire", "ReLU", f"{owner}/{model}" if owner else model, site)
    return Found(file.path, origin, partial(_relu, file, _GOODFIRE, origin, False, []))


def _relu(file: TensorFile, layout: dict[str, Stored], origin: Origin, centred: bool, ignored: list[str]) -> SAE:
    weights = read_weights(file, layout, kind=f"a ReLU SAE of {origin.format}", ignored=ignored)
    weights["threshold"] = torch.zeros_like(weights["b_enc"])
    return threshold_sae(weights, origin, apply_b_dec_to_input=centred)


def _qwen(file: TensorFile) -> Found:
    named = first_match(_QWEN_REPOSITORY, names_above(file.path))
    if named is None:
        raise ValueError(
            f"{file.path} is a Qwen Scope file, and its path does not say how many latents are kept: put it into a folder "
            "named like its repository, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50."
        )
    k, layer = int(named[2]), re.match(r"layer(\d+)\.", file.path.name)
    site = f"model.layers.{layer[1]}.output" if layer else None
    origin = Origin("Qwen Scope", f"TopK, k={k}", f"Qwen/{named[1]}", site)
    return Found(file.path, origin, partial(_top_k, file, k, origin))


def _top_k(file: TensorFile, k: int, origin: Origin) -> SAE:
    weights = read_weights(file, _QWEN, kind="a Qwen Scope SAE")
    return top_k_sae(weights, k, origin, stated=f"{file.path}: L0 in the name of its repository")
