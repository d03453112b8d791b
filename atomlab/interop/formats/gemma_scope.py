"""Reads Gemma Scope 1, a NumPy archive `params.npz`, and Gemma Scope 2, `params.safetensors` beside a config.json."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from atomlab.interop.config_file import read_config, text
from atomlab.interop.formats.found import Found, folder_of, transcoder
from atomlab.interop.sae_from_tensors import PARAMETERS, Stored, read_weights, threshold_sae
from atomlab.interop.tensor_file import TensorFile, open_npz, open_safetensors
from atomlab.sae import SAE, Origin

ARCHIVE, WEIGHTS, CONFIG = "params.npz", "params.safetensors", "config.json"
# Sites by what stands in the names of repositories and folders, as paths of modules of Gemma in transformers.
_SITES = {
    ("res", "resid_post"): "model.layers.{}.output",
    ("mlp", "mlp_out"): "model.layers.{}.post_feedforward_layernorm.output",
    ("att", "attn_out"): "model.layers.{}.self_attn.o_proj.input",
}
_DETAILS = {"context_size": 1024, "prepend_bos": True}  # of both releases, as their reports say


def find(path: Path) -> Found | None:
    """Finds an SAE of Gemma Scope 1 or 2: f = relu(z)·[z > θ], z = x W_enc + b_enc; b_dec is not subtracted from x.

    The model, layer and site of Gemma Scope 1 are in the names of its folders alone (`gemma-scope-2b-pt-res/layer_12/...`);
    where a path has other names they stay unknown. Its embedding SAEs read x/√d_in, which is folded into the
    weights as SAELens does it (b_dec stays).

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
    place = archive.resolve().as_posix()
    if "transcoder" in place or any(key.lower() == "w_skip" for key in file.shapes):
        raise transcoder(archive, "a Gemma Scope archive")
    embedding = "/embedding/" in place
    named = re.search(r"gemma-scope-(\d+b)-(pt|it)-(\w+)", place)
    model = f"google/gemma-2-{named[1]}{'-it' if named[2] == 'it' else ''}" if named else None
    site = _site(place, named[3] if named else "")
    scaled = "inputs divided by √d_in, folded into the weights" if embedding else "none"
    origin = Origin("Gemma Scope", "jumprelu", model, site, scaled, _DETAILS if named else {})
    return Found(archive, origin, partial(_read, file, origin, embedding))


def _second(folder: Path) -> Found:
    file = open_safetensors(folder / WEIGHTS)
    config = read_config(folder / CONFIG) if (folder / CONFIG).exists() else {}
    kind = "a Gemma Scope 2 folder"
    reads, writes = (text(config, f"hf_hook_point_{side}") for side in ("in", "out"))
    place = folder.resolve().as_posix()
    transcodes = re.search(r"/(transcoder|clt)", place) or config.get("affine_connection")
    if transcodes or "affine_skip_connection" in file.shapes or writes not in (None, reads):
        raise transcoder(folder, kind, reads, writes)
    if (architecture := config.get("architecture", "jump_relu")) != "jump_relu":
        raise ValueError(f"{folder / CONFIG} is of a {architecture!r} SAE, and only 'jump_relu' can be read.")
    stated = text(config, "model_name")
    named = re.search(r"gemma-scope-2-(\w+)-(pt|it)", place)
    model = _model(stated) if stated else f"google/gemma-3-{named[1]}-{named[2]}" if named else None
    details = _DETAILS | ({"hf_hook_name": reads} if reads else {})
    origin = Origin("Gemma Scope 2", "jumprelu", model, reads or _site(place, ""), details=details)
    return Found(file.path, origin, partial(_read, file, origin, False))


def _read(file: TensorFile, origin: Origin, embedding: bool) -> SAE:
    """Reads the five parameters; upper and lower case in their names do not matter."""
    keys = {key.lower(): key for key in file.shapes}
    layout = {name: Stored(keys.get(name.lower(), name)) for name in PARAMETERS}
    weights = read_weights(file, layout)
    return threshold_sae(_of_embeddings(weights) if embedding else weights, origin)


def _of_embeddings(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undoes the factor √d_in of Gemma's embeddings, as SAELens does: W_enc/√d_in and W_dec·√d_in."""
    root = weights["W_dec"].shape[1] ** 0.5
    return dict(weights) | {"W_enc": weights["W_enc"] / root, "W_dec": weights["W_dec"] * root}


def _site(place: str, kind: str) -> str | None:
    layer = re.search(r"/layer_(\d+)", place)
    for names, site in _SITES.items():
        if layer and (kind in names or any(f"/{name}" in place for name in names)):
            return site.format(layer[1])
    return None


def _model(stated: str) -> str:
    """Returns the hub's name of a model that a config.json names, which may lack the owner and write gemma-v3."""
    return stated.replace("-v3", "-3") if "/" in stated else f"google/{stated.replace('-v3', '-3')}"
