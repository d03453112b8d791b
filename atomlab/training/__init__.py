"""Trains a threshold-activated sparse autoencoder with Lightning.

- `module.py`: the LightningModule, and `build`, which makes it from data and options. `options.py` checks the options.
- `training_data.py`: what training asks of its data.
- `objective.py`: the number that a sweep compares. `measurement.py`: validation.
- `callbacks.py`: unit norms, throughput, data wait and the progress bar. `last_checkpoint.py`: last.ckpt and signals.
- `checkpoints.py`, `resuming.py`: reads checkpoints, and continues runs from them.
- `trainer_checks.py`: refuses trainers whose numbers would be wrong. `divergence.py`: recognises trainings that failed.
- `forecast.py`: sizes, memory and time before the training. `loggers.py`: loggers that need no account.

Another callback: a class in a file of its own or in `callbacks.py`, and a leaf in conf/callbacks/default.yaml.
Another logger: a function in `loggers.py`, and an option file in conf/logger.
"""
