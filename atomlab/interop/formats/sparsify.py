"""Reads folders of sparsify: cfg.json and sae.safetensors, one folder a hook point."""

import re
from functools import partial
from pathlib import Path

from atomlab.interop.config_file import count, read_config, text
from atomlab.interop.formats.found import Found, cannot_hold, first_match, folder_of, folders_of, transcoder
from atomlab.interop.layout import Stored
from atomlab.interop.sae_from_tensors import read_weights, top_k_sae
from atomlab.interop.tensor_file import TensorFile, open_safetensors
from atomlab.sae import SAE, Origin

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_KIND = "a sparsify folder"
_HOOK_POINT = re.compile(r".+\.\d+(\..+)?")
_LAYOUT = {
    "W_enc": Stored("encoder.weight", transposed=True),
    "b_enc": Stored("encoder.bias"),
    "W_dec": Stored("W_dec"),  # with atoms as rows, unlike a Linear's weight
    "b_dec": Stored("b_dec"),
}


def find(path: Path) -> Found | None:
    """Finds a TopK SAE of sparsify: f keeps the k largest of relu(z), z = (x − b_dec) W_enc + b_enc.

    The name of its folder is the hook point, a path of modules inside the model's base model, whose output it reads. The
    config.json of the run, one folder up, names the model.

    Args:
        path: the folder, or one of its two files.

    Returns:
        The SAE, which reads raw activations; None if there is no such folder.

    Raises:
        ValueError: it is a transcoder or has groups (`groupmax`), or its files are damaged.
    """
    folder = folder_of(path, CONFIG, WEIGHTS)
    if not (folder / WEIGHTS).exists() or not (folder / CONFIG).exists():  # a file of another format may have this name
        return None
    config = read_config(folder / CONFIG)
    file = open_safetensors(folder / WEIGHTS)
    if config.get("transcode") or config.get("skip_connection") or "W_skip" in file.shapes:
        raise transcoder(folder, _KIND)
    if config.get("signed"):
        raise cannot_hold(folder, _KIND, "signed codes", "train it without signed=true")
    if (activation := config.get("activation", "topk")) != "topk":
        raise cannot_hold(folder, _KIND, f"the activation {activation!r}", "only 'topk' can be read")
    k = count(folder / CONFIG, config, "k")
    places = folders_of(file.path)
    above = (place.parent / "config.json" for place in places)
    run = next((read_config(config) for config in above if config.exists()), {})
    site = first_match(_HOOK_POINT, (place.name for place in places))
    details = {"context_size": run.get("ctx_len"), "dataset_path": run.get("dataset")}
    origin = Origin(
        "sparsify",
        f"TopK, k={k}",
        text(run, "model"),
        f"{site[0]}.output" if site else None,
        details={key: value for key, value in details.items() if value is not None},
    )
    sizes = (config.get("d_in"), config.get("num_latents") or None)
    return Found(file.path, origin, partial(_read, file, k, sizes, origin))


def _read(file: TensorFile, k: int, sizes: tuple[object, object], origin: Origin) -> SAE:
    weights = read_weights(file, _LAYOUT, kind="a sparsify SAE", sizes=sizes)
    return top_k_sae(weights, k, origin, stated=f"{file.path.parent / CONFIG}: k", apply_b_dec_to_input=True)
