"""Writes firings in the cache format of eai-delphi, whose language-model judges then explain and score the atoms.

The format is that of version 0.1.3 (`delphi.latents.cache.LatentCache.save_splits`), and its `LatentDataset` reads it:

- `<folder>/<hook point>/<first>_<last>.safetensors`: `locations`, (firings, 3), are sequence, position and latent − first;
  `activations`, (firings,); `tokens`, (sequences, length).
- `<folder>/<hook point>/config.json`: the model and the shape of the tokens.

Delphi explains only latents that fire in at least 200 windows, so `sample_sizes.browsed` should be large.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.firings import Firings
from atomlab.files import atomic_write, safetensors_written

_LATENTS_A_FILE = 4096
_WINDOW = 32  # delphi cuts sequences into windows of this length by default; their length must be a multiple of it


def export_delphi(firings: Firings, rows: Rows, folder: Path, hook_point: str, model_name: str, pad: int) -> None:
    """Writes the firings, and the token sequences that they lie in.

    Args:
        firings: of one unit, over whole sequences.
        rows: the split that they were found in.
        folder: where the files go; it is made if it does not exist. Delphi reads it with `LatentDataset(folder, ...)`.
        hook_point: the name of the folder inside, and of the hook point in delphi.
        model_name: the model whose tokenizer delphi loads.
        pad: token id that fills the end of shorter sequences.

    Raises:
        OSError: the folder cannot be written.
    """
    tokens, places = _sequences(firings, rows, pad)
    target = folder / hook_point
    target.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(firings.counts), _LATENTS_A_FILE):
        last = min(first + _LATENTS_A_FILE, len(firings.counts)) - 1
        mine = (firings.atom >= first) & (firings.atom <= last)
        locations = torch.cat([places[firings.sample[mine]], firings.atom[mine, None] - first], dim=1)
        data = {
            "locations": locations.numpy().astype(np.int64),
            "activations": firings.value[mine].numpy().astype(np.float32),
            "tokens": tokens.numpy().astype(np.int64),
        }
        with atomic_write(target / f"{first}_{last}.safetensors") as file, safetensors_written(file):
            save_file(data, file)
    config = {
        "model_name": model_name,
        "ctx_len": tokens.shape[1],
        "n_tokens": tokens.numel(),
        "batch_size": 1,
        "n_splits": -(-len(firings.counts) // _LATENTS_A_FILE),
    }
    with atomic_write(target / "config.json") as file:
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _sequences(firings: Firings, rows: Rows, pad: int) -> tuple[Tensor, Tensor]:
    """Returns the padded token ids of the sequences in use, and the (sequence, position) of each sample among them."""
    sequences = rows.store.origins.sequences
    token = sequences.keep.nonzero().squeeze(1)[rows.numbers[firings.rows]]
    sequence = torch.searchsorted(sequences.offsets, token, right=True) - 1
    used, number = sequence.unique(return_inverse=True)
    longest = int(sequences.lengths[used].max())
    ids = torch.full((len(used), -(-longest // _WINDOW) * _WINDOW), pad, dtype=torch.int64)
    for line, one in zip(ids, used.tolist(), strict=True):
        span = sequences.input_ids[sequences.offsets[one] : sequences.offsets[one + 1]]
        line[: len(span)] = span
    return ids, torch.stack([number, token - sequences.offsets[sequence]], dim=1)
