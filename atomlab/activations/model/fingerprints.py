"""What a model's folder and a tokenizer are, by their content: a copy is the same, and another file beside them is not
looked at."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from atomlab.files import file_digest

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def of_folder(folder: Path, title: str) -> str:
    """A digest of config.json and of the weight files that are loaded.

    Cost: one read of the weights at about 1.5 GB/s the first time, and nothing after it (`file_digest`).

    Raises:
        ValueError: an index that cannot be read, or names a file that is not there.
    """
    return _digest({file.name: file_digest(file) for file in [folder / "config.json", *_weight_files(folder, title)]})


def _weight_files(folder: Path, title: str) -> list[Path]:
    """In the order in which transformers looks for them; all of a kind nobody knows."""
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


def of_tokenizer(tokenizer: Any) -> str:
    """A digest of all that decides which tokens a text becomes, as far as the tokenizer's own files hold it.

    With a Rust backend it is of the backend's text, without the truncation and padding of the last call; without one,
    of the vocabulary files that the tokenizer writes.
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


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = tokenizer.save_vocabulary(folder, filename_prefix=None)
        except NotImplementedError:
            written = ()
        files = {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in written or ()}
    return files or tokenizer.get_vocab()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
