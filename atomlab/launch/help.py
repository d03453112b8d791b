"""What `--help` prints: the groups with their options, the overrides that are used most, and sweeps."""

import re
import sys
import textwrap
from pathlib import Path

from atomlab.launch.own_options import OWN_FOLDER

GROUPS = {
    "model": "the language model; hf takes any folder or name of the hub: model=hf model.name=...",
    "site": "where in its layers; module takes any: site=module \"site.name='...{layer}...'\"",
    "corpus": "the text that is trained and tested on; local takes your own: corpus.path=...",
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
_HEAD = {
    "train": """\
Harvests activations of a language model, trains a sparse autoencoder on them, and measures it.
Without any word it takes a model and text from two packages and needs no hub.
""",
    "evaluate": """\
Measures the atoms of a run beside every control, or runs a study that trains on its own.
""",
}
_EXAMPLES = {
    "train": {
        "The overrides that are used most": {
            "model=hf model.name=my_folder/model": "your own model, folder or hub name",
            "corpus=local corpus.path=my_texts/": "your own text",
            "layer=12 site=mlp_hidden": "where in the model",
            "sae.expansion=8": "atoms = expansion × d_in",
            "training.sparsity.target=20": "atoms of a vector, on average",
            "steps=3000 batch_size=1024": "how long it is trained",
            "activations.tokens.max_tokens=null": "all vectors of the text",
            "trainer=gpu": "on a GPU",
            "logger=none": "without wandb",
            "dry_run=true": "sizes, memory and time, and stop",
            "resume=<run>/checkpoints/last.ckpt": "go on after Ctrl-C",
        },
        "Sweeps: any option with commas, and -m in front": {
            "-m sae.expansion=1,2 seed=0,1": "four runs from one harvest",
            "sweep=width": "one run for each number of atoms",
            "sweep=capacity_grid": "atoms × training vectors",
            "-m sae.expansion=1,2,4 bank=true": "all jobs in one process",
            "resume_sweep=<folder>": "go on with a sweep by its folder",
            "-m seed=0,1 hydra/launcher=submitit_slurm": "the jobs run on a cluster",
        },
    },
    "evaluate": {
        "Examples": {
            "run=outputs/<date>/<time>": "a run of train, on its own text",
            "run=<folder> sample_sizes.measured=8192": "on more vectors",
            "run=<folder> study.seeds=[<run>,<run>]": "which atoms come back",
            "run=<folder> study.browser=null": "without the atom browser",
            "experiment=paper_table study.layers=[0,5]": "the paper's protocol by layer",
            "experiment=capacity": "when a high R² is memory",
            "experiment=representation_shift": "angles between two texts",
            "model=hf model.name=<model> layer=3": "trains there first",
        },
    },
}
_LEFT = 64  # columns of a program with its words


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
    lines = [_HEAD[name]]
    for title, examples in _EXAMPLES[name].items():
        lines += [f"{title}:", *(f"  {f'{program} {words}':{_LEFT - 2}}{what}" for words, what in examples.items()), ""]
    lines.append("Groups: <group>=<option>")
    left_out = _OF_EVALUATE if name == "train" else _OF_TRAIN
    for group, what in GROUPS.items():
        if group not in left_out:
            options = ", ".join(options_of(group, [folder, Path.cwd() / OWN_FOLDER], name))
            lines += [f"  {group:13} {what}", *_wrapped(options)]
    lines += [
        "",
        "Every key of every file can be set as key=value; nothing is read that no signature has.",
        f"  {f'{program} --cfg job':{_LEFT - 2}}all keys with their values",
        f"  {f'{program} --hydra-help':{_LEFT - 2}}the flags of Hydra",
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
