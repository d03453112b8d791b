"""Digests of a model's folder and of a tokenizer, by their content.

A copy of a folder has the same digest, and files beside those that are loaded do not matter.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from atomlab.files import file_digest

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def model_folder_digest(folder: Path, title: str) -> str:
    """Returns a digest of config.json and of the weight files that are loaded from a model's folder.

    Args:
        folder: the folder of the model.
        title: name of the model, for error messages.

    Returns:
        Sixteen hexadecimal digits.

    Raises:
        ValueError: the index of the weights cannot be read, or names a file that is not there.
        OSError: a file cannot be read.

    Cost: one read of the weights at about 1.5 GB/s the first time, nothing after it (`file_digest`).
    """
    return _digest({file.name: file_digest(file) for file in [folder / "config.json", *_weight_files(folder, title)]})


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns a digest of all that decides which tokens a text becomes, as far as the tokenizer's files hold it.

    A tokenizer with a Rust backend is known by the backend's own description, without the truncation and padding that
    the last call left in it; one without, by its switches and the vocabulary files that it writes.

    Args:
        tokenizer: a tokenizer of transformers.

    Returns:
        Sixteen hexadecimal digits.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    else:
        switches = {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, bool)}
        rules = {"switches": switches, "vocabulary": _vocabulary(tokenizer)}
    return _digest({"rules": rules, "special": special, "added": added})


def _weight_files(folder: Path, title: str) -> list[Path]:
    """The files that transformers loads; of a folder with none of the usual names, all files that may be weights."""
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        return sorted(file for file in folder.iterdir() if file.suffix in {".safetensors", ".bin", ".gguf"})
    if found.suffix != ".json":
        return [found]
    try:
        names = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The weights of {title} could not be loaded because their index {found.name} is damaged: download or save "
            f"the model again."
        ) from error
    if lost := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"The weights of {title} could not be loaded because the file {lost[0]} is not there, which their index "
            f"{found.name} names: download or save the model again with all its files."
        )
    return [folder / name for name in names]


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    """SHA-256 of each vocabulary file that the tokenizer writes; of one that writes none, the vocabulary itself."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = tokenizer.save_vocabulary(folder, filename_prefix=None)
        except NotImplementedError:
            written = ()
        files = {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in written or ()}
    return files or tokenizer.get_vocab()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
