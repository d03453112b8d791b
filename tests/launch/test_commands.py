"""Every command line in the documents passes a real shell and composes (faults.md C1)."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.processes import ROOT, one_sentence, run
from tests.test_config import CONF, composed

FLAGS = {"-m", "--multirun"}


def commands(text: str) -> list[str]:
    """Commands of training and evaluation, as scripts and as `atomlab`, in blocks of code and between backticks."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    inline = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]
    lines = [line.strip() for line in blocks.splitlines()] + inline
    program = r"(srun |PYTHONPATH=\. )?(python (train|evaluate)\.py|atomlab (train|evaluate)) (?!--help)"
    return [line for line in lines if re.match(program, line)]


FOUND = [
    (str(file.relative_to(ROOT)).removeprefix("docs/"), command)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for command in commands(file.read_text(encoding="utf-8"))
]


def test_there_are_commands() -> None:
    assert len(FOUND) >= 40
    assert {file.split("/")[0] for file, _ in FOUND} >= {"README.md", "how-to"}


@pytest.mark.parametrize(("file", "command"), FOUND)
def test_a_command_of_the_documents_composes(file: str, command: str) -> None:
    words = through_a_shell(command)
    start = next(number for number, word in enumerate(words) if word in ("python", "atomlab"))
    name = words[start + 1].removesuffix(".py")
    overrides = [word for word in words[start + 2 :] if word not in FLAGS]
    own = [word for word in overrides if not word.startswith("resume_sweep=")]  # read before Hydra reads the rest
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(
            name, [word for word in own if not re.match(r"[\w.]+=([^\[{(']*,|interval\()", word)]
        )  # a sweep's values
    assert overrides


def through_a_shell(command: str) -> list[str]:
    """The words that a program gets. `...` and `<name>` stand for parts of a path."""
    line = re.sub(r"<[^>]*>|\.\.\.", "x", command)
    printed = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
    return printed.split("\0")[:-1]


def test_a_value_that_hydra_cannot_read_is_quoted_right(tmp_path: Path) -> None:
    """faults.md C1: Hydra's sentence names neither the option nor a remedy. What is proposed is what Hydra takes."""
    value = "model.layers.{layer}.output"
    finished = run("train.py", "site=module", f"site.name={value}", cwd=tmp_path, cache=tmp_path / "cache")
    said = one_sentence(finished)
    assert f"site.name={value} cannot be read" in said
    proposed = shlex.split(said.rpartition(": ")[2])
    assert proposed == [f"site.name='{value}'"]
    assert composed(["site=module", *proposed]).site.name == value


def test_the_example_of_a_module_survives_the_shell() -> None:
    """C1: `site.name='...{layer}...'` lost its quotes in the shell, and Hydra refused the braces."""
    examples = [
        ROOT / "README.md",
        CONF / "site" / "module.yaml",
        ROOT / "atomlab" / "activations" / "model" / "sites.py",
    ]
    for file in examples:
        text = Path(file).read_text(encoding="utf-8").replace('\\"', '"')
        (found,) = re.findall(r"site=module \"site\.name=[^\"]*\"", text)
        command = found.replace("<module path>", "model.norm")
        words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
        config = composed(words.stdout.splitlines())
        assert config.site.name == shlex.split(command)[1].removeprefix("site.name=").strip("'")
