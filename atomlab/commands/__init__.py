"""What a user starts: `atomlab train`, `evaluate`, `doctor` and `new-experiment`, from any folder.

- `main.py`: the program `atomlab`, which hands its words to one of the others.
- `train.py` and `evaluate.py`: the two commands that take a configuration. The scripts of the same names in a checkout
  start them too.
- `training_run.py` and `evaluation_run.py`: what they do once the configuration is composed and checked. They alone import
  the libraries, so that `--help` and a misspelt option take a second.
- `doctor.py`: looks at the machine and says what to do; its parts are in `examinations.py`.
- `new_experiment.py`: writes the skeleton of a configuration into the user's folder.
- `configuration_folder.py`: where conf/ lies, in a checkout and in an installed package.

A new command is a file with a function `main(words)`, and a line in `main.py`.
"""
