"""Reads Gemma Scope 1, a NumPy archive `params.npz`, and Gemma Scope 2, `params.safetensors` beside a config.json."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from atomlab.interop.config_file import read_config, text
from atomlab.interop.formats.found import Found, first_match, folder_of, names_above, transcoder, warn_of_transcoders
from atomlab.interop.layout import Stored
from atomlab.interop.sae_from_tensors import PARAMETERS, read_weights, threshold_sae
from atomlab.interop.tensor_file import TensorFile, open_npz, open_safetensors
from atomlab.sae import SAE, Origin

ARCHIVE, WEIGHTS, CONFIG = "params.npz", "params.safetensors", "config.json"
# Sites by the names of repositories and folders, as paths of modules of Gemma in transformers.
_RESIDUAL, _EMBEDDING = "model.layers.{}.output", "model.layers.0.input"
_MLP, _HEADS = "model.layers.{}.post_feedforward_layernorm.output", "model.layers.{}.self_attn.o_proj.input"
_SITES = {"res": _RESIDUAL, "resid_post": _RESIDUAL, "mlp": _MLP, "mlp_out": _MLP, "att": _HEADS, "attn_out": _HEADS}
# Whole names of repositories and folders.
_RELEASE = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(\w+)(?:-.*)?")
_SECOND_RELEASE = re.compile(r"gemma-scope-2-(\w+)-(pt|it)(?:-.*)?")
_TRANSCODER = re.compile(r"(?:.*[-_])?(?:transcoder|clt)s?(?:[-_].*)?")
_PLACE = re.compile(r"embedding|layer_(\d+)(?:_.*)?")
_DETAILS = {"context_size": 1024, "prepend_bos": True}  # of both releases, as their reports say


def find(path: Path) -> Found | None:
    """Finds an SAE of Gemma Scope 1 or 2: f = relu(z)·[z > θ], z = x W_enc + b_enc; b_dec is not subtracted from x.

    The model, layer and site of Gemma Scope 1 are in the names of its folders alone (`gemma-scope-2b-pt-res/layer_12/...`);
    where a path has other names they stay unknown, and reading it logs a warning, since transcoders have the same tensors. Its
    embedding SAEs read x/√d_in, where x is what the first layer reads, and this is folded into the weights as SAELens does it
    (b_dec stays). Only whole names of folders count, those of the
    repository before others, and the innermost before those above it.

    Args:
        path: the `.npz` file, a folder with `params.npz` or `params.safetensors`, or that file.

    Returns:
        The SAE, which reads raw activations; None if no such file is there.

    Raises:
        ValueError: it is a transcoder, or its files are damaged.
    """
    folder = folder_of(path, WEIGHTS, CONFIG)
    if path.suffix == ".npz" or (folder / ARCHIVE).exists():
        return _first(path if path.suffix == ".npz" else folder / ARCHIVE)
    return _second(folder) if (folder / WEIGHTS).exists() else None


def _first(archive: Path) -> Found:
    file = open_npz(archive)
    names = names_above(archive)
    release, place = first_match(_RELEASE, names), first_match(_PLACE, names)
    kind = _kind([release[3]] if release else names)
    if kind == "transcoder" or any(key.lower() == "w_skip" for key in file.shapes):
        raise transcoder(archive, "a Gemma Scope archive")
    embedding = place is not None and place[0] == "embedding"
    model = f"google/gemma-2-{release[1]}{'-it' if release[2] == 'it' else ''}" if release else None
    site = _EMBEDDING if embedding else _site(place, kind)
    scaled = "inputs divided by √d_in, folded into the weights" if embedding else "none"
    origin = Origin("Gemma Scope", "jumprelu", model, site, scaled, _DETAILS if release else {})
    unsaid = not embedding and not kind
    return Found(archive, origin, partial(_read, file, origin, embedding, "its path" if unsaid else None))


def _second(folder: Path) -> Found:
    file = open_safetensors(folder / WEIGHTS)
    config = read_config(folder / CONFIG) if (folder / CONFIG).exists() else {}
    names = names_above(file.path)
    reads, writes = (text(config, f"hf_hook_point_{side}") for side in ("in", "out"))
    kind = _kind(names)
    transcodes = reads != writes if reads and writes else writes is not None or kind == "transcoder"
    if transcodes or config.get("affine_connection") or "affine_skip_connection" in file.shapes:
        raise transcoder(folder, "a Gemma Scope 2 folder", reads, writes)
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise ValueError(f"{folder / CONFIG} is of a {architecture!r} SAE, and only 'jump_relu' can be read.")
    stated, release = text(config, "model_name"), first_match(_SECOND_RELEASE, names)
    model = _model(stated) if stated else f"google/gemma-3-{release[1]}-{release[2]}" if release else None
    details = _DETAILS | ({"hf_hook_name": reads} if reads else {})
    site = reads or _site(first_match(_PLACE, names), kind)
    origin = Origin("Gemma Scope 2", "jumprelu", model, site, details=details)
    return Found(
        file.path, origin, partial(_read, file, origin, False, None if reads or kind else f"its path or {CONFIG}")
    )


def _read(file: TensorFile, origin: Origin, embedding: bool, unsaid: str | None) -> SAE:
    """Reads the five parameters; upper and lower case in their names do not matter.

    `unsaid` is what does not say whether it is an SAE; None if it is one.
    """
    if unsaid:
        warn_of_transcoders(file.path, unsaid)
    keys = {key.lower(): key for key in file.shapes}
    case = str.lower if {"w_enc", "w_dec"} & set(file.shapes) else str  # in which what is missing is named
    layout = {name: Stored(keys.get(name.lower(), case(name))) for name in PARAMETERS}
    weights = read_weights(file, layout)
    return threshold_sae(_of_embeddings(weights) if embedding else weights, origin)


def _of_embeddings(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undoes the factor √d_in of Gemma's embeddings, as SAELens does: W_enc/√d_in and W_dec·√d_in."""
    root = weights["W_dec"].shape[1] ** 0.5
    return dict(weights) | {"W_enc": weights["W_enc"] / root, "W_dec": weights["W_dec"] * root}


def _kind(names: Iterable[str]) -> str:
    """Returns what the first name that says it says: `transcoder`, or a key of the sites; empty if none does."""
    for name in names:
        if _TRANSCODER.fullmatch(name):
            return "transcoder"
        if (site := name.removesuffix("_all")) in _SITES:
            return site
    return ""


def _site(place: re.Match[str] | None, kind: str) -> str | None:
    return _SITES[kind].format(place[1]) if place and kind else None


def _model(stated: str) -> str:
    """Returns the hub's name of a model that a config.json names, which may lack the owner and write gemma-v3."""
    return stated.replace("-v3", "-3") if "/" in stated else f"google/{stated.replace('-v3', '-3')}"
