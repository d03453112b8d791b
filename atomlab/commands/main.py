"""The program `atomlab`: hands the words of the command line to one of its commands."""

import difflib
import runpy
import sys

_TASKS = {"train": "atomlab.commands.train", "evaluate": "atomlab.commands.evaluate"}
_USAGE = """\
atomlab: find the atoms of language models, and prove what you found.

  atomlab train           harvests activations, trains a sparse autoencoder, and measures it; the defaults need no hub
  atomlab evaluate        measures a run with every control (run=<folder>), or runs a study (experiment=paper_table)
  atomlab doctor          looks at this machine: versions, devices, cache, network; and says what to do
  atomlab new-experiment  writes a configuration with comments into this folder, to be changed and run by its name

  atomlab <command> --help explains each of them.
"""


def main() -> None:
    """Runs the command that the first word of the command line names.

    `train` and `evaluate` run as modules (`python -m atomlab.commands.train`), so that the further processes of a
    distributed run can be started in the same way from any folder.
    """
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        sys.stdout.write(_USAGE)
    elif name in _TASKS:
        sys.argv = [f"atomlab {name}", *words]
        runpy.run_module(_TASKS[name], run_name="__main__", alter_sys=True)
    elif name == "doctor":
        from atomlab.commands.doctor import main as doctor

        sys.exit(doctor(words))
    elif name == "new-experiment":
        from atomlab.commands.new_experiment import main as new_experiment

        sys.exit(new_experiment(words))
    else:
        known = [*_TASKS, "doctor", "new-experiment"]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean atomlab {near[0]}?" if near else f"choose one of {', '.join(known)}."
        sys.stderr.write(f"atomlab: there is no command {name!r}: {hint}\n")
        sys.exit(2)
