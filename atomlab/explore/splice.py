"""Puts an SAE into a Hugging Face model, so that the model goes on with what the SAE makes of an activation."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from atomlab.activations.model.capture import axis_orders, random_ids
from atomlab.activations.model.replacing import edited_at, replaced
from atomlab.activations.model.sites import HookPoint
from atomlab.explore.atom_edits import AtomEdit
from atomlab.sae import SAE


@contextmanager
def splice(
    model: nn.Module,
    sae: SAE,
    point: HookPoint | str,
    edits: AtomEdit | Sequence[AtomEdit] = (),
    *,
    positions: Collection[int] | None = None,
    leave: Collection[int] = (),
    keep_error: bool = False,
) -> Iterator[None]:
    """Replaces activations by the SAE's reconstructions in every forward pass inside the block, `generate` included.

    With f the code of an activation x and f′ the code after the edits, x becomes f′ W_dec + b_dec. With `keep_error` it
    becomes x + (f′ − f) W_dec, so that what the SAE does not explain stays, and without edits nothing changes.

    What is taken care of:

    - Modules that pass tuples, or the axes in another order: the activation is found and all else stays.
    - A model in bfloat16 and an SAE in float32: the vectors are converted to the SAE's dtype and device, and what comes
      out to the model's. Vectors that are not replaced stay the same to the bit.
    - The first position of a text is an attention sink, with a norm far above all others. Hundreds of atoms fire on it,
      and no run of atomlab has trained on it by default. It is left as it is unless `positions` names it.
    - While a text is generated, the model sees one new token a pass: positions go on counting where the cache of keys
      and values ends. Padding is never replaced, and positions count from the first token that is none.
    - Gradients flow through the block to the activations. An SAE that `atomlab.load` or `open_run` read has parameters
      that ask for none.
    - Atoms need not have unit Euclidean norm (those of a run of atomlab have unit norm in its metric S), so activations
      of two atoms are comparable only together with the norms of their rows in W_dec.

    Args:
        model: a model of transformers, with or without a language-model head. Its own forward pass must be called, not
            that of a part of it.
        sae: of the activations at `point`, in raw coordinates, as files hold it.
        point: where the SAE was trained, such as "model.layers.5.output". A run's cfg.json names it; `open_run` reads it.
        edits: what is changed of which atoms, one after the other (`ablate`, `scale`, `add`). None: plain reconstruction.
        positions: which positions of each sequence are replaced, counted from 0, also those that are generated later, such
            as `range(4, 9)`. None: all but the first.
        leave: token ids whose activations are left as they are, such as special tokens.
        keep_error: see above.

    Yields:
        Nothing. All hooks are removed at the end of the block, also after an error in it.

    Raises:
        ValueError: the model has no such hook point, its width is not that of the SAE, an atom does not exist, or a
            forward pass inside the block is that of a part of the model.

    Cost: two to five forward passes over at most 65 tokens at the beginning; 6·d_in·d_sae FLOPs a replaced token.
    """
    point = HookPoint.parse(point) if isinstance(point, str) else point
    chosen = [edits] if isinstance(edits, AtomEdit) else list(edits)
    for one in chosen:
        one.check(sae.d_sae)
    order, width = axis_orders(model, [point], random_ids(_vocabulary_size(model)))[point]
    if width != sae.d_in:
        raise ValueError(
            f"{point} is {width} wide and the SAE has d_in={sae.d_in}: give the point that it was trained at."
        )
    running: list[Tensor] = []  # which tokens of the pass that runs now are replaced

    def before(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        running[:] = [_replaced_tokens(args, kwargs, positions, leave)]

    def after(*_: Any) -> None:
        running.clear()

    def change(value: Tensor) -> Tensor:
        if not running:
            raise ValueError("A part of the model was called inside a splice: call the model that was given to splice.")
        return edited_at(value, order, running[0], lambda x: _changed(x, sae, chosen, keep_error))

    handles = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, always_call=True),
    ]
    try:
        with replaced(model, point, change):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _changed(x: Tensor, sae: SAE, edits: Sequence[AtomEdit], keep_error: bool) -> Tensor:
    """What takes the place of the activations x, (n, d_in), in the dtype and on the device of the SAE."""
    x = x.to(sae.W_dec)
    codes = sae.encode(x)
    changed = codes
    for edit in edits:
        changed = edit.applied(changed)
    return x + (changed - codes) @ sae.W_dec if keep_error else sae.decode(changed)


def _replaced_tokens(
    args: tuple, kwargs: dict[str, Any], positions: Collection[int] | None, leave: Collection[int]
) -> Tensor:
    """(batch, context) bool: which tokens of a forward pass are replaced, from the arguments of the pass."""
    ids = kwargs.get("input_ids", args[0] if args else None)
    given = ids if ids is not None else kwargs["inputs_embeds"]
    batch, context = given.shape[:2]
    cache = kwargs.get("past_key_values")
    past = int(cache.get_seq_length()) if cache is not None else 0
    mask = kwargs.get("attention_mask")
    if mask is None or mask.ndim != 2:
        mask = torch.ones(batch, past + context, dtype=torch.long, device=given.device)
    position = (mask.cumsum(1) - 1)[:, past : past + context]
    if positions is None:
        wanted = position > 0
    else:
        wanted = torch.tensor(
            [[number in positions for number in row] for row in position.tolist()], device=given.device
        )
    if ids is not None and leave:
        wanted = wanted & ~torch.isin(ids, torch.tensor(sorted(leave), device=ids.device))
    return wanted & mask[:, past : past + context].bool()


def _vocabulary_size(model: nn.Module) -> int:
    config: Any = model.config
    return config.get_text_config().vocab_size
