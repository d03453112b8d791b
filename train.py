"""Trains a TSAE on a language model's activations and measures what it found: `python train.py`, options in conf/."""

from atomlab.commands.train import main, train

__all__ = ["train"]

if __name__ == "__main__":
    main()
