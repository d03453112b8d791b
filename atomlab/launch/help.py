"""What `--help` prints: the groups with their options, the overrides that are used most, and sweeps."""

import re
import sys
import textwrap
from pathlib import Path

from atomlab.launch.own_options import OWN_FOLDER

GROUPS = {
    "model": "the language model; hf takes any folder or name of the hub: model=hf model.name=...",
    "site": "where in its layers; module takes any: site=module \"site.name='...{layer}...'\"",
    "corpus": "the text whose vectors are trained and tested on; local takes your own: corpus.path=...",
    "activations": "how they are harvested; online is for text larger than the disk",
    "sae": "how the sparse autoencoder is built; plain is for ablations",
    "training": "how it is trained",
    "trainer": "on which devices: trainer=gpu, trainer=ddp trainer.devices=8",
    "callbacks": "what happens around a step: checkpoints, logging, the progress bar",
    "logger": "where the curves go; wandb works offline where there is no key",
    "sample_sizes": "how many vectors, supports and tokens a table is measured on",
    "experiment": "a whole configuration by its name; `atomlab new-experiment` writes yours",
    "ablation": "one choice of the recipe changed",
    "sweep": "several runs in one command, which goes on where it stopped",
    "study": "which table is made",
}
_OF_TRAIN = ("callbacks", "logger", "ablation", "sweep")
_OF_EVALUATE = ("study",)
_TRAIN = """\
Harvests activations of a language model, trains a sparse autoencoder on them, measures it, and writes a report.
Without any word it takes a model and text from two packages and needs no hub.

The overrides that are used most:
  {program} model=hf model.name=my_folder/model       your own model, of a folder or the hub
  {program} corpus=local corpus.path=my_texts/        your own text
  {program} layer=12 site=mlp_hidden                  where in the model
  {program} sae.expansion=8                           atoms = expansion times the width of a vector
  {program} training.sparsity.target=20               atoms of a vector, on average
  {program} steps=3000 batch_size=1024                how long it is trained
  {program} activations.tokens.max_tokens=null        all vectors of the text, not the first run's few
  {program} trainer=gpu                               on a GPU
  {program} logger=none                               without wandb
  {program} dry_run=true                              check all, print sizes, memory and time, and stop
  {program} resume=<run>/checkpoints/last.ckpt        go on after Ctrl-C

Sweeps: any option with commas, and -m in front
  {program} -m sae.expansion=1,2 seed=0,1             four runs from one harvest; the same command goes on
  {program} sweep=width                               one run for each number of atoms
  {program} resume_sweep=<folder>                     go on with a sweep by its folder
  {program} -m seed=0,1 hydra/launcher=submitit_slurm the jobs run on a cluster
"""
_EVALUATE = """\
Measures the atoms of a run beside every control, or runs a study that trains on its own. Writes a table and a report.

  {program} run=outputs/<date>/<time>                  a run of `train`, on its own text
  {program} run=<folder> sample_sizes.measured=8192    on more vectors
  {program} run=<folder> study.seeds=[<run>,<run>]     which atoms come back under other seeds
  {program} run=<folder> study.browser=null            without the atom browser
  {program} experiment=paper_table study.layers=[0,5]      the paper's protocol, layer by layer
  {program} experiment=capacity                        over vectors and atoms: when a high R² is memory
  {program} experiment=representation_shift            angles between the activations of two texts
  {program} model=hf model.name=<model> layer=3        trains at that place first, then measures with every control
"""


def help_text(folder: Path, name: str, program: str) -> str:
    """Writes the help of a command.

    Args:
        folder: the configuration folder of atomlab.
        name: of the primary configuration: train or evaluate.
        program: what the user started, such as `atomlab train`.

    Returns:
        Lines of at most 100 characters. Groups are listed with the options that this command can run, those in conf/ of the
        working folder among them.
    """
    lines = [(_TRAIN if name == "train" else _EVALUATE).format(program=program), "Groups: <group>=<option>"]
    left_out = _OF_EVALUATE if name == "train" else _OF_TRAIN
    for group, what in GROUPS.items():
        if group not in left_out:
            options = ", ".join(options_of(group, [folder, Path.cwd() / OWN_FOLDER], name))
            lines += [f"  {group:13} {what}", *_wrapped(options)]
    lines += [
        "",
        "Every key of every file can be set as key=value; nothing is read that no signature has.",
        f"  {program} --cfg job                    prints all keys with their values",
        f"  {program} --hydra-help                 the flags of Hydra, which composes the configuration",
    ]
    return "\n".join(lines) + "\n"


def program_name(name: str) -> str:
    """Returns how the user started, or would start, a command: by the script of a checkout, or as `atomlab`."""
    of_checkout = Path(sys.argv[0]).name in ("train.py", "evaluate.py") and Path(sys.argv[0]).parent.name != "commands"
    return f"python {name}.py" if of_checkout else f"atomlab {name}"


def options_of(group: str, folders: list[Path], name: str) -> list[str]:
    """Names the options of a group that a command can run: `train` runs no experiment that is a study."""
    files = [file for folder in folders for file in sorted((folder / group).glob("*.yaml"))]
    study = {file.stem for file in files if group == "experiment" and is_study(file)}
    return list(dict.fromkeys(file.stem for file in files if name == "evaluate" or file.stem not in study))


def is_study(experiment: Path) -> bool:
    """Returns whether an experiment chooses a study, which `evaluate` runs and `train` does not."""
    return re.search(r"^\s*- override /study:", experiment.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _wrapped(options: str, width: int = 100, indent: int = 16) -> list[str]:
    return textwrap.wrap(options, width, initial_indent=" " * indent, subsequent_indent=" " * indent)
