"""Trains a threshold-activated sparse autoencoder, or one that it is compared with, with Lightning.

- `recipe.py`: how a TSAE is built and trained, the leaves `sae` and `training` of conf/, which check their own values.
- `fit.py`: from vectors to an SAE in one call. `vectors.py`: vectors in memory as data. `kinds.py`: how each kind is trained.
- `l1_control.py`: the coefficient of an ℓ1 term that reaches a wanted L0.
- `build.py`: from data and a recipe to `module.py`, the LightningModule.
- `training_data.py`: what training asks of its data.
- `objective.py`: the number that a sweep compares. `validation.py`: what a validation measures.
- `callbacks.py`: unit norms, throughput, data wait and the progress bar. `last_checkpoint.py`: last.ckpt and signals.
- `guards.py`: warns while a training goes wrong; may leave out batches. `checkpoint_io.py`: checkpoint files for Lightning.
- `resuming.py`: continues runs from checkpoints, which `atomlab.interop.checkpoint` reads.
- `trainer_checks.py`: refuses trainers whose numbers would be wrong. `failed_training.py`: recognises trainings that failed.
- `forecast.py`: sizes, memory and time before the training. `loggers.py`: loggers that need no account.

Another part of the recipe: a type or a field in `recipe.py`, and its key in conf/training/default.yaml.
Another callback: a class in a file of its own or in `callbacks.py`, and a leaf in conf/callbacks/default.yaml.
Another logger: a function in `loggers.py`, and an option file in conf/logger.
"""
