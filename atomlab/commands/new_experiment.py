"""`atomlab new-experiment <name>`: the skeleton of a configuration, with comments, in the user's own folder."""

import argparse
import re
import sys
from pathlib import Path

from atomlab.commands.configuration_folder import configuration_folder
from atomlab.files import atomic_write
from atomlab.launch import OWN_FOLDER

_SKELETON = """\
# @package _global_
# atomlab train experiment={name}                   harvests, trains and measures
# atomlab train experiment={name} dry_run=true      checks everything first: sizes, memory, time
# Every value here is the default. Delete what you do not change; what is missing stays as it is.
# What the command line sets comes last: atomlab train experiment={name} layer=8

defaults: # one file of each group; atomlab train --help lists them
  - override /model: smollm2_embedded # or hf, with model: name: below
  - override /site: resid_post # or resid_pre, mlp_in, mlp_hidden, mlp_out, attn_z, attn_out, module
  - override /corpus: wikipedia_embedded # or local, with corpus: path: below; counterfact; hub
  - override /corpus@reference: wikipedia_embedded # the text whose second moment defines the metric S
  - override /sae: tsae
  - override /trainer: cpu # or gpu, ddp

# model: # for override /model: hf
#   name: my_folder/my_model # or a name of the hub
# corpus: # for override /corpus: local
#   path: my_texts/ # a folder of .txt files, or a .txt, .jsonl, .json or .parquet file

layer: 5 # counted from 0
steps: 1000
batch_size: 512 # vectors a step
seed: 0

activations:
  tokens:
    context: 256 # tokens of a sequence
    max_tokens: 122400 # vectors over all splits; null keeps all

sae:
  expansion: 4.0 # atoms = expansion times the width of the activations

training:
  sparsity:
    target: 40.0 # atoms of a vector, on average
"""


def main(words: list[str]) -> int:
    """Writes conf/experiment/<name>.yaml below the working folder.

    Args:
        words: of the command line: the name of the experiment.

    Returns:
        The exit code: 0, or 2 with one sentence where the name is none, or is taken.
    """
    parser = argparse.ArgumentParser(
        prog="atomlab new-experiment",
        description="Writes a configuration with comments into conf/experiment/<name>.yaml of this folder, and runs nothing.",
    )
    parser.add_argument("name", help="what the experiment is called: letters, digits and _, as in my_layers")
    name = parser.parse_args(words).name
    try:
        file = write_experiment(name, Path.cwd())
    except (ValueError, OSError) as error:
        sys.stderr.write(f"atomlab: {error}\n")
        return 2
    sys.stdout.write(
        f"{file} is written. Change it, and run it in this folder:\n  atomlab train experiment={name} dry_run=true\n"
        f"  atomlab train experiment={name}\n"
    )
    return 0


def write_experiment(name: str, folder: Path) -> Path:
    """Writes the skeleton of an experiment.

    Args:
        name: of the experiment.
        folder: in which the experiment will be run.

    Returns:
        The new file, <folder>/conf/experiment/<name>.yaml.

    Raises:
        ValueError: the name has other characters than letters, digits and _, or belongs to an experiment of atomlab.
        FileExistsError: the file is there already.
        OSError: the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot name an experiment: use letters, digits and _, beginning with a letter.")
    taken = sorted(file.stem for file in (configuration_folder() / "experiment").glob("*.yaml"))
    if name in taken:
        raise ValueError(f"{name} is an experiment of atomlab, as are {', '.join(taken)}: give another name.")
    file = folder / OWN_FOLDER / "experiment" / f"{name}.yaml"
    if file.exists():
        raise FileExistsError(f"{file} exists, and nothing is written over: give another name, or remove it.")
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(_SKELETON.format(name=name), encoding="utf-8")
    return file
