"""The rooms import one way only: this table is the architecture (docs/architecture.md draws it)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "autocast": set(),  # what must be exact keeps out of autocast, in whatever room
    "files": set(),  # how every room opens and writes files
    "groups": set(),  # which processes see other data and hold other latents
    "identity": {"files"},
    "progress": set(),  # when a bar is drawn, by whatever room
    "ranges": set(),  # what numbers an option may be
    "repeated_signals": set(),  # whether a signal is sent again, before and in a training
    "theory": {"autocast"},
    "sae": {"autocast", "groups", "ranges"},
    "activations": {
        "files",
        "groups",
        "identity",
        "progress",
        "ranges",
    },  # a harvest is compared with what is asked for
    "report": set(),
    "launch": {"files", "progress", "ranges", "repeated_signals"},
    "metrics": {"ranges", "theory"},
    # activations: the site that an SAE belongs to; groups: processes that write their latents together
    "interop": {"files", "groups", "identity", "theory", "sae", "activations"},
    "coders": {"autocast", "theory", "sae"},  # a code is chosen for a dictionary, whatever it comes from
    "units": {"autocast", "theory", "sae", "coders"},
    "training": {
        "autocast",
        "files",
        "groups",
        "identity",
        "progress",
        "ranges",
        "repeated_signals",
        "sae",
        "metrics",
        "theory",
        "activations",
        "interop",
        "units",
    },
    "evaluation": {
        "files",
        "identity",
        "progress",
        "ranges",
        "theory",
        "sae",
        "metrics",
        "activations",
        "interop",
        "coders",
        "units",
        "training",
        "report",
    },
    "explore": {"activations", "identity", "interop", "sae"},  # a saved SAE inside the model that it belongs to
    "__init__": {"activations", "sae", "interop", "coders", "explore", "training"},
    "__main__": {"commands"},
    "commands": {
        "groups",
        "activations",
        "evaluation",
        "files",
        "identity",
        "interop",
        "launch",
        "report",
        "training",
    },  # what a user starts
    # the autoencoder, its losses, and on top of both the arithmetic of a step
    "sae/thresholding": set(),
    "sae/sparse_code": set(),
    "sae/shard": set(),  # which latents a process holds
    "sae/decoder": set(),  # the rows of any decoder
    "sae/encoder": set(),  # the affine map of any encoder
    "sae/origin": set(),
    "sae/autoencoder": {"decoder", "encoder", "origin", "shard", "thresholding"},
    "sae/baselines": {
        "autoencoder",
        "decoder",
        "encoder",
        "origin",
        "shard",
        "sparse_code",
    },  # the TSAE with the same codes
    "sae/calibration": {"autoencoder", "baselines"},
    "sae/input_transform": {"autoencoder", "baselines"},
    "sae/losses": {"autoencoder", "baselines", "decoder", "shard", "sparse_code", "thresholding"},
    "sae/ops": {"autoencoder", "baselines", "decoder", "losses", "sparse_code"},
    "sae/__init__": {
        "autoencoder",
        "baselines",
        "calibration",
        "decoder",
        "input_transform",
        "losses",
        "origin",
        "thresholding",
    },
    # from tensors in a file to an SAE, through one of many formats; writing stands beside reading
    "interop/tensor_file": set(),
    "interop/config_file": set(),
    "interop/site_names": set(),
    "interop/layout": {"tensor_file"},  # where a file has each parameter, and whether it has all
    "interop/sae_from_tensors": {"layout", "tensor_file"},
    "interop/checkpoint_file": {"tensors_in_json"},
    "interop/baseline_of_weights": {"sae_from_tensors"},
    "interop/tensors_in_json": set(),
    "interop/sharded_record": set(),  # what a sharded checkpoint says of itself
    "interop/sharded_checkpoint": {"sharded_record", "tensors_in_json"},
    "interop/checkpoint": {
        "baseline_of_weights",
        "checkpoint_file",
        "sae_from_tensors",
        "sharded_checkpoint",
        "sharded_record",
    },
    "interop/integrity": {"checkpoint"},
    "interop/formats": {"config_file", "integrity", "layout", "sae_from_tensors", "tensor_file"},
    "interop/recognise": {"formats", "layout", "tensor_file"},  # it names what an unknown file holds
    "interop/hub": {"formats"},
    "interop/load": {"checkpoint", "config_file", "formats", "hub", "integrity", "recognise"},
    "interop/locate": {"checkpoint", "load", "sae_from_tensors", "site_names"},
    "interop/export": {"formats", "integrity", "load", "sae_from_tensors", "site_names"},
    "interop/__init__": {"export", "load"},
    # the way of the data inside activations: text -> tokens -> activations on disk -> batches
    "activations/model": set(),
    "activations/corpora": set(),
    "activations/tokens": {"corpora"},
    "activations/store": {"tokens"},
    "activations/bounded_queue": set(),
    "activations/harvest": {"model", "corpora", "tokens", "store", "bounded_queue"},
    "activations/batches": {"model", "corpora", "tokens", "bounded_queue"},
    "activations/datamodule": {"model", "corpora", "tokens", "store", "harvest", "batches"},
    "activations/__init__": {"model", "tokens", "store", "harvest", "batches", "datamodule"},
    # from measured rows to studies
    "evaluation/retraining": set(),
    "evaluation/surrogates": set(),
    "evaluation/provenance": set(),
    "evaluation/saved_sae": {"provenance"},
    "evaluation/rows": set(),
    "evaluation/planted": set(),
    "evaluation/planted_by_saelens": set(),
    "evaluation/consistency": {"provenance"},  # a command of its own
    "evaluation/option_checks": set(),
    "evaluation/equal_l0": {"rows"},
    "evaluation/controls": {"retraining", "surrogates", "rows", "equal_l0"},
    "evaluation/study": {"retraining"},  # what every study gets
    "evaluation/browser": {"study", "equal_l0"},
    "evaluation/scaling": set(),  # laws over measured cells, of a study's grid and of a sweep
    "evaluation/studies": {
        "study",
        "retraining",  # of the Gaussian surrogate beside a run
        "surrogates",
        "planted",
        "planted_by_saelens",
        "provenance",
        "saved_sae",
        "rows",
        "scaling",
        "option_checks",
        "equal_l0",
        "controls",
        "browser",
    },
    "evaluation/sweeps": {"scaling"},  # reads what jobs wrote, and needs no study
    "evaluation/sweep": {"sweeps"},
    "evaluation/__init__": {"study", "retraining", "provenance", "saved_sae", "rows", "browser", "studies"},
}
ONLY_IN = {
    "yaml": {"interop/config_file.py", "interop/export/model_card.py"},
    "transformers": {"activations"},
    "datasets": {"activations"},
    "huggingface_hub": {"activations", "interop"},
    "pyarrow": {"activations", "evaluation/sweeps"},  # the tidy table of a sweep
    "tokenizers": {"activations"},
    "wandb": {"training", "evaluation"},
    "wandb_workspaces": {"evaluation"},
    "sklearn": {"theory", "units", "evaluation"},
    "scipy": {"theory", "units", "evaluation"},
    "matplotlib": {"report"},
    "sae_lens": {"evaluation/planted_by_saelens.py"},
    "jinja2": {"report"},
    "rich": {"report", "commands"},  # tables for the terminal
    "hydra": {"launch", "commands"},  # commands: a task builds what its configuration names
    "omegaconf": {"launch", "commands", "explore"},
}
LIGHTNING = {
    "training",
    "evaluation",
    "activations/datamodule.py",
    "activations/harvest",
    "commands",
}
WITH_ROOMS = {key.split("/")[0] for key in MAY_IMPORT if "/" in key}
FILES = sorted((ROOT / "atomlab").rglob("*.py"))


def rooms(file: Path) -> list[str]:
    """The room of a file, and the room inside it: ["activations", "model"], ["files"]."""
    return list(file.relative_to(ROOT / "atomlab").with_suffix("").parts[:2])


def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {f"{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    mine, *inner = rooms(file)
    places = {mine, "/".join((mine, *inner)), str(file.relative_to(ROOT / "atomlab"))}
    for name in imported(file):
        top, *rest = name.split(".")
        if top == "atomlab" and rest and rest[0] != mine:
            assert rest[0] in MAY_IMPORT[mine], f"{mine} may not import atomlab.{rest[0]}"
        if top == "atomlab" and rest and rest[0] == mine and mine in WITH_ROOMS:
            own = inner[0]
            assert len(rest) > 1, f"{mine}/{own} imports its own room: name the file"
            assert rest[1] == own or rest[1] in MAY_IMPORT[f"{mine}/{own}"], f"{mine}/{own} may not import {rest[1]}"
        if top in ONLY_IN:
            assert places & ONLY_IN[top], f"{top} may not be imported in {mine}"
        if top == "lightning":
            assert places & LIGHTNING, f"lightning may not be imported in {mine}"


def test_the_table_allows_no_more_than_is_used() -> None:
    used: dict[str, set[str]] = {key: set() for key in MAY_IMPORT}
    for file in FILES:
        mine, *inner = rooms(file)
        for name in imported(file):
            top, *rest = name.split(".")
            if top != "atomlab" or not rest:
                continue
            if rest[0] != mine:
                used[mine].add(rest[0])
            elif mine in WITH_ROOMS and rest[1] != inner[0]:
                used[f"{mine}/{inner[0]}"].add(rest[1])
    assert used == MAY_IMPORT


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{node.name} has {lines} lines"
