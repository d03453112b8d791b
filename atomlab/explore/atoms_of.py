"""Which atoms fire on which token of a text."""

from pathlib import Path
from typing import NamedTuple

import torch

from atomlab.activations.model.capture import capture
from atomlab.activations.tokens.token_texts import TokenTexts
from atomlab.explore.opened_run import OpenedRun, open_run


class Firing(NamedTuple):
    """One atom on one token. A list of them is a table: `pandas.DataFrame(atoms_of(...))`.

    Attributes:
        position: of the token in the text as the model sees it, from 0; special tokens in front count.
        token: the text of the token, as it stands in the text.
        atom: number of the atom: its row of W_dec.
        activation: f of the atom there, above its threshold, in the units of the SAE.
    """

    position: int
    token: str
    atom: int
    activation: float


@torch.no_grad()
def atoms_of(text: str, run: str | Path | OpenedRun) -> list[Firing]:
    """Says which atoms fire on which token of a text.

    The language model runs up to the hook point at which the SAE was trained, which the SAE's own file names. Its
    activations are converted to the SAE's float32, whatever the model's dtype. What the training left out is left out
    here too: by default the first position, an attention sink on which hundreds of atoms would fire, and special tokens.

    Args:
        text: a text that fits the model's context.
        run: the folder of a run or of an SAE, or an opened run (`open_run`), which is faster for many texts because it
            loads the model once.

    Returns:
        A row for each firing, in the order of the text, and for each token the strongest atom first. Activations of
        different atoms are comparable only together with the norms of their rows in W_dec: the atoms of a run have unit
        norm in its metric S, not in the Euclidean one.

    Raises:
        FileNotFoundError, ValueError: as `open_run`.
        ValueError: the text is empty, or longer than the model's context.
    """
    run = open_run(run)
    inputs = run.tokenizer(text, return_tensors="pt")
    ids = inputs["input_ids"]
    check_length(ids.shape[1], run)
    x = capture(run.model, [run.point], {"input_ids": ids.to(run.language_model.device)})[run.point][0]
    codes = run.sae.encode(x.to(run.sae.W_dec)).cpu()
    tokens = ids[0].tolist()
    texts = TokenTexts(run.tokenizer)(tokens)
    found = []
    for position, (token, shown, code) in enumerate(zip(tokens, texts, codes, strict=True)):
        if token in run.left_out or (position == 0 and run.drop_first):
            continue
        atoms = code.nonzero().squeeze(1)
        strongest = atoms[code[atoms].argsort(descending=True, stable=True)]
        found += [Firing(position, shown, atom, float(code[atom])) for atom in strongest.tolist()]
    return found


def check_length(tokens: int, run: OpenedRun) -> None:
    """Raises ValueError for a text without tokens, or with more than the model has positions for."""
    room = getattr(run.language_model.config.get_text_config(), "max_position_embeddings", None)
    if tokens == 0:
        raise ValueError("The text is empty: give a text of at least one word.")
    if room is not None and tokens > room:
        raise ValueError(f"The text has {tokens:,} tokens and the model has room for {room:,}: give it in parts.")
