"""INTERIM"""

import torch


def read_checkpoint(path):
    if not path.exists():
        raise FileNotFoundError(f"Checkpoint file not found: {path}. Aborting training.")
    return torch.load(path, map_location="cpu", weights_only=True)
