"""`pip install .` into an empty environment gives the program `atomlab`, which runs from any folder."""

import ast
import json
import os
import site
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.processes import ROOT, environment
from tests.tiny import OPTIONS


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with atomlab alone, which reads all other packages from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", f"--python={folder}/bin/python", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", str(_source(tmp_path_factory))], check=True)
    return folder


def _source(factory: pytest.TempPathFactory) -> Path:
    """What git knows, so that nothing is built in the checkout and nothing else gets in."""
    copy = factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name.startswith(("atomlab/", "conf/", "pyproject.toml", "README.md", "LICENSE")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def atomlab(installed: Path, *words: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in environment(cache).items() if name not in ("PYTHONPATH", "ATOMLAB_PROGRESS")}
    command = [str(installed / "bin" / "atomlab"), *words]
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)


def test_every_package_is_named_in_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "atomlab").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders} | {"atomlab.conf"}
    assert found == set(project["tool"]["setuptools"]["packages"])


def _imported_packages() -> set[str]:
    """Top-level modules that files of atomlab import and that are neither its own nor Python's."""
    found: set[str] = set()
    for file in (ROOT / "atomlab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"atomlab"}


def test_pip_install_brings_every_package_that_is_imported() -> None:
    """Of each import, a distribution is declared in pyproject.toml, or needed without condition by one that is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {Requirement(line).name for line in project["dependencies"]}
    optional = {Requirement(line).name for lines in project["optional-dependencies"].values() for line in lines}
    brought = {line for name in declared - {"triton"} for line in requires(name) or [] if "extra" not in line}
    names = {canonicalize_name(name) for name in declared | {Requirement(line).name for line in brought}}
    owners = packages_distributions()
    imported = _imported_packages() - {"sae_lens"}  # of `study.saelens` alone, which says how to install it
    imports = {module: {canonicalize_name(name) for name in owners[module]} for module in imported}
    assert {module for module, found in imports.items() if not found & names} <= {"gguf", "wandb_workspaces"}
    assert {"gguf", "wandb-workspaces"} <= optional
    used = {name for found in imports.values() for name in found}
    assert {canonicalize_name(name) for name in declared} <= used  # and nothing that nobody imports


def test_the_pinned_list_is_one_that_the_project_file_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = [Requirement(line) for line in lines]
    listed = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    pinned = {(one := Requirement(line)).name: one.specifier for line in listed if line}
    assert {one.name for one in wanted} == set(pinned)
    for one in wanted:
        versions = [pin.version for pin in pinned[one.name] if pin.operator == "=="]
        assert all(one.specifier.contains(version) for version in versions)
        assert versions or one.name == "triton"  # a GPU build of torch brings its own


def test_every_requirement_is_in_the_environment_of_the_peers() -> None:
    """What atomlab needs and neither sae-lens nor the lists of `peers/` install would stop all tests of `make test-interop`."""
    of_sae_lens = {
        "annotated-types", "datasets", "fsspec", "numpy", "packaging", "pyarrow", "pydantic", "rich", "safetensors", "tqdm",
        "transformers",
    }  # fmt: skip
    only_on_a_gpu = {"triton"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {Requirement(line).name for line in project["dependencies"]}
    listed = (ROOT / "peers" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {Requirement(line).name for line in listed if not line.startswith("#")}
    assert needed - only_on_a_gpu - of_sae_lens <= named


@pytest.mark.slow
def test_a_sweep_and_two_processes_run_from_another_folder(installed: Path, tiny: Path, tmp_path: Path) -> None:
    """The jobs of a sweep, and the further processes of a distributed run, start the installed package themselves."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    made = atomlab(installed, "new-experiment", "mine", cwd=tmp_path, cache=tiny / "cache")
    assert made.returncode == 0, made.stderr
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nsteps: 9\n")
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "logger=none", "hydra.sweep.dir=out"]
    options = [word for word in OPTIONS if not word.startswith(("steps=", "logger="))]
    words = ["train", "-m", *options, *two, "experiment=mine", "seed=0"]
    finished = atomlab(installed, *words, cwd=tmp_path, cache=tiny / "cache")
    assert finished.returncode == 0, finished.stderr
    written = json.loads((tmp_path / "out" / "0" / "results.json").read_text())
    assert written["rows"][0]["unit"] == "atoms"
    assert "%|" not in finished.stderr
    asked = atomlab(installed, "train", "study=capacity", cwd=tmp_path, cache=tiny / "cache")
    assert asked.returncode == 2
    assert "atomlab evaluate study=capacity" in asked.stderr
    assert sorted(os.listdir(tmp_path)) == ["conf", "model", "out", "text.txt"]
