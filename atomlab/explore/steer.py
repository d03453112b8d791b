"""Continues a text while some atoms are changed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from atomlab.explore.atom_edits import AtomEdit
from atomlab.explore.atoms_of import check_length
from atomlab.explore.opened_run import OpenedRun, open_run


@torch.no_grad()
def steer(
    text: str,
    run: str | Path | OpenedRun,
    edits: AtomEdit | Sequence[AtomEdit],
    *,
    max_new_tokens: int = 40,
    positions: Collection[int] | None = None,
    keep_error: bool = True,
) -> str:
    """Lets the language model continue a text while some atoms are changed.

    The most probable token is taken each time, so the same call gives the same text. For other ways to generate, call
    `run.model.generate(...)` inside `with run.splice(...)`.

    Args:
        text: what is continued.
        run: the folder of a run or of an SAE, or an opened run (`open_run`).
        edits: what is changed of which atoms: `add(amount, atom)` makes an atom fire at every token, `scale(factor, atom)`
            changes it where it fires, `ablate(atom)` switches it off. No edits, `()`: the model's own continuation.
        max_new_tokens: length of the continuation, at most.
        positions: which tokens are changed, counted from 0, those of the continuation included. None: as in the training,
            by default all but the first and special tokens.
        keep_error: whether what the SAE does not explain stays in the activations. With False the model goes on with the
            reconstructions, which alone change the text.

    Returns:
        The text with its continuation.

    Raises:
        FileNotFoundError, ValueError: as `open_run` and `splice`.
        ValueError: the model is an encoder, which continues no text; or the text is too long.
    """
    run = open_run(run)
    if not run.language_model.is_causal:
        raise ValueError(f"{run.language_model.title} is an encoder and continues no text: steer needs a causal model.")
    inputs = run.tokenizer(text, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    check_length(length, run)
    model: Any = run.model
    asked = {name: inputs[name].to(run.language_model.device) for name in ("input_ids", "attention_mask")}
    end = run.tokenizer.pad_token_id if run.tokenizer.pad_token_id is not None else run.tokenizer.eos_token_id
    with run.splice(edits, positions=positions, keep_error=keep_error):
        ids = model.generate(**asked, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=end)
    return text + run.tokenizer.decode(ids[0, length:], skip_special_tokens=True)
