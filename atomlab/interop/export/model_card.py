"""The front page of a repository that holds a trained SAE: what it is, how to load it, its closing table and its data."""

from collections.abc import Mapping
from typing import Any

import yaml

_OF_DATA = ("model", "hook_point", "corpus", "reference", "activations")  # keys of a run's record (`atomlab.identity`)
_OF_TRAINING = ("sae", "training", "shrinkage", "trainer", "batch_size", "seed", "steps", "code")
_KINDS = {"jumprelu": "A threshold-activated", "standard": "A ReLU", "topk": "A TopK", "gated": "A gated"}
_FACTS = {
    "model_name": "Language model",
    "hook_name": "Site, in TransformerLens's name or as a module",
    "hf_hook_name": "Site in transformers",
    "d_in": "Width of the activations (d_in)",
    "d_sae": "Atoms (d_sae)",
    "architecture": "Architecture",
    "context_size": "Tokens of a sequence",
    "prepend_bos": "BOS in front",
    "dataset_path": "Corpus on the hub",
    "l0": "Mean number of active atoms (L0)",
    "num_dead_features": "Atoms that never fire",
}


def model_card(repo: str, folder: str, config: Mapping[str, Any], table: str = "") -> str:
    """Writes the front page of an SAE's repository in Markdown, from what its files state.

    Args:
        repo: `<owner>/<name>` of the repository.
        folder: of the SAE inside the repository; empty for its root.
        config: the fields of its cfg.json. `metadata` says where it was trained; with `atomlab_identity` in it, the page has
            the configuration of the run and the record of its data.
        table: the run's results.md; empty leaves the table out.

    Returns:
        The text, with YAML in front that the hub reads. No path of this machine is added to what the fields have.
    """
    metadata = config.get("metadata") or {}
    identity = metadata.get("atomlab_identity") or {}
    front: dict[str, Any] = {"library_name": "saelens", "tags": ["sparse-autoencoder", "interpretability", "atomlab"]}
    if "/" in str(metadata.get("model_name") or ""):
        front["base_model"] = metadata["model_name"]
    if metadata.get("dataset_path"):
        front["datasets"] = [metadata["dataset_path"]]
    facts = [f"| {said} | {_cell(value)} |" for key, said in _FACTS.items() if (value := _of(key, config)) is not None]
    place = f"{repo}/{folder}" if folder else repo
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# Sparse autoencoder of {_cell(metadata.get('model_name') or 'a language model')}",
        f"{_KINDS.get(str(config.get('architecture')), 'A')} sparse autoencoder, {_source(metadata)} in the format of SAELens.",
        "\n".join(["| | |", "|---|---|", *facts]),
        _usage(repo, folder, place),
    ]
    if table:
        parts += ["# What was measured", table.strip()]
    for title, keys in (("Configuration of the training", _OF_TRAINING), ("Data", _OF_DATA)):
        stated = {key: identity[key] for key in keys if key in identity}
        if stated:
            parts += [f"# {title}", f"```yaml\n{yaml.safe_dump(stated, sort_keys=False).strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _source(metadata: Mapping[str, Any]) -> str:
    """Says who trained it: an SAE that was read from files of others names their format (`metadata_of_origin`)."""
    format = str(metadata.get("source_format") or "atomlab")
    own = format.startswith("atomlab") or "atomlab_identity" in metadata
    return "trained with atomlab and saved" if own else f"read from files of {_cell(format)} and saved by atomlab"


def _of(key: str, config: Mapping[str, Any]) -> Any:
    return config.get(key, (config.get("metadata") or {}).get(key))


def _cell(value: object) -> str:
    """Formats a value for a Markdown table, in which it can end neither its cell nor its line, and holds no HTML."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    for symbol, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("\n", " ")):
        text = text.replace(symbol, instead)
    return text


def _usage(repo: str, folder: str, place: str) -> str:
    inner = f'"{repo}", "{folder}"' if folder else f'"{repo}", "."'
    return (
        f'```python\nimport atomlab\n\nsae = atomlab.load_sae("{place}")\n```\n\n'
        f"```python\nfrom sae_lens import SAE\n\nsae = SAE.from_pretrained({inner})\n```"
    )
