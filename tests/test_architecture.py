"""The rooms import one way only: this table is the architecture (its reasons stand in CONTRIBUTING.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "autocast": set(),  # what is exact keeps out of it, in whatever room
    "files": set(),  # how every room opens and writes files
    "theory": {"autocast"},
    "sae": {"autocast", "files"},
    "activations": {"files", "identity"},  # a harvest is held against what is asked for
    "report": set(),
    "identity": {"files"},
    "launch": set(),
    "metrics": {"theory"},
    "units": {"autocast", "files", "theory", "sae"},
    "training": {"files", "identity", "sae", "metrics", "theory", "activations", "report"},
    "evaluation": {"files", "identity", "theory", "sae", "metrics", "activations", "units", "training", "report"},
    "__init__": {"sae"},
}
ONLY_IN = {
    "transformers": {"activations"},
    "datasets": {"activations"},
    "huggingface_hub": {"activations"},
    "pyarrow": {"activations"},
    "tokenizers": {"activations"},
    "wandb": {"training", "evaluation"},
    "sklearn": {"theory", "units", "evaluation"},
    "scipy": {"theory", "units", "evaluation"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "hydra": {"launch"},
    "omegaconf": {"launch"},
}
LIGHTNING = {
    "training",
    "evaluation",
    "activations/datamodule.py",
    "activations/harvest.py",
    "activations/harvests.py",
    "launch/shell.py",  # its exception for a mistake of the user
}
FILES = sorted((ROOT / "atomlab").rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(ROOT / "atomlab").parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {f"{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    mine = room(file)
    for name in imported(file):
        top, *rest = name.split(".")
        if top == "atomlab" and rest and rest[0] != mine:
            assert rest[0] in MAY_IMPORT[mine], f"{mine} may not import atomlab.{rest[0]}"
        if top in ONLY_IN:
            own = str(file.relative_to(ROOT / "atomlab"))
            assert {mine, own} & ONLY_IN[top], f"{top} may not be imported in {mine}"
        if top == "lightning":
            assert mine in LIGHTNING or str(file.relative_to(ROOT / "atomlab")) in LIGHTNING


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{node.name} has {lines} lines"
