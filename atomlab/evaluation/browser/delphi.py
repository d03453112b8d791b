"""Firings in eai-delphi's cache format (0.1.3, `delphi.latents.cache.LatentCache.save_splits`), for LLM-judged scores.

<folder>/<hook point>/<first>_<last>.safetensors: `locations` (firings, 3), which are sequence, position and
latent − first; `activations` (firings,); `tokens` (sequences, length)
<folder>/<hook point>/config.json

Read back by that version's own `LatentDataset`. It explains latents with at least 200 windows only: browse many samples.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.evaluation.browser.contexts import Firing
from atomlab.files import atomic_write

_LATENTS_A_FILE = 4096
_WINDOW = 32  # delphi cuts sequences into windows of this length by default, and wants it to divide theirs


def export_delphi(found: Firing, rows: Rows, folder: Path, hook_point: str, model_name: str, pad: int) -> None:
    """Writes the firings and the token sequences they lie in; read it with delphi's `LatentDataset(folder, ...)`.

    Args:
        found: of the unit, over whole sequences.
        rows: the split that `found` is about.
        folder: made if absent.
        hook_point, model_name: as delphi should show them; the model gives it the tokenizer.
        pad: token id after the end of shorter sequences.

    Raises:
        OSError: the folder cannot be written.
    """
    tokens, places = _sequences(found, rows, pad)
    target = folder / hook_point
    target.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(found.counts), _LATENTS_A_FILE):
        last = min(first + _LATENTS_A_FILE, len(found.counts)) - 1
        mine = (found.atom >= first) & (found.atom <= last)
        locations = torch.cat([places[found.sample[mine]], found.atom[mine, None] - first], dim=1)
        data = {
            "locations": locations.numpy().astype(np.int64),
            "activations": found.value[mine].numpy().astype(np.float32),
            "tokens": tokens.numpy().astype(np.int64),
        }
        with atomic_write(target / f"{first}_{last}.safetensors") as file:
            save_file(data, file)
    config = {
        "model_name": model_name,
        "ctx_len": tokens.shape[1],
        "n_tokens": tokens.numel(),
        "batch_size": 1,
        "n_splits": -(-len(found.counts) // _LATENTS_A_FILE),
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _sequences(found: Firing, rows: Rows, pad: int) -> tuple[Tensor, Tensor]:
    """Padded token ids of the sequences in use, and each looked-at row's (sequence, position) among them."""
    sequences = rows.store.origins.sequences
    token = sequences.keep.nonzero().squeeze(1)[rows.numbers[found.rows]]
    sequence = torch.searchsorted(sequences.offsets, token, right=True) - 1
    used, number = sequence.unique(return_inverse=True)
    longest = int(sequences.lengths[used].max())
    ids = torch.full((len(used), -(-longest // _WINDOW) * _WINDOW), pad, dtype=torch.int64)
    for line, one in zip(ids, used.tolist(), strict=True):
        span = sequences.input_ids[sequences.offsets[one] : sequences.offsets[one + 1]]
        line[: len(span)] = span
    return ids, torch.stack([number, token - sequences.offsets[sequence]], dim=1)
