"""The command line: how training and evaluation are started, checked, kept apart from one another, and stopped.

- `command_line.py`: `launch`, which composes the configuration, runs a task and turns its errors into exit codes.
- `error_sentences.py`: one sentence for each mistake of the user.
- `options.py`: compares the composed configuration with the signatures that it goes to.
- `help.py`: what `--help` prints.
- `own_options.py`: finds option files of the user, in conf/ of the working folder.
- `run_folders.py`: reserves the folder of a run or a sweep, and writes over nothing.
- `sweep_jobs.py`: runs each job of a sweep (`-m`) in a process of its own.
- `sweep_folder.py`: the folder of a sweep, with the status of each job.
- `ranks.py`: tells the first process of a distributed run from the further ones.
- `run_to_measure.py`: what evaluate.py takes from the run folder that it measures.
- `signals.py`: what SIGINT, SIGTERM and SIGUSR1 do.

Nothing here imports PyTorch or Lightning before a task does, so `--help` and a misspelt option are answered at once.

A new option needs no line here: it is an argument of the class or function that a leaf of conf/ names as its `_target_`.
A new kind of error that users cause: raise ValueError or OSError with one sentence, or add its type to `_mistakes` in
`command_line.py`.
"""

from atomlab.launch.command_line import launch, plain
from atomlab.launch.own_options import OWN_FOLDER
from atomlab.launch.ranks import folder_of_first_process
from atomlab.launch.run_folders import ClaimFolder
from atomlab.launch.run_to_measure import as_yaml, check_only_read, config_of_run, setting_of, trainer_config

__all__ = [
    "OWN_FOLDER",
    "ClaimFolder",
    "as_yaml",
    "check_only_read",
    "config_of_run",
    "folder_of_first_process",
    "launch",
    "plain",
    "setting_of",
    "trainer_config",
]
