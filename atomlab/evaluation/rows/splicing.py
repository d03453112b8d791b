"""Faithfulness to the language model (theory.md 8): what becomes of its predictions when x̂ takes the place of x."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from atomlab.activations.model.capture import AxisOrder, axis_orders
from atomlab.activations.model.replacing import Edit, edited_at, replaced
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import Rows
from atomlab.metrics import LossRecovered, NextTokenKL
from atomlab.progress import token_bar

_TOKENS_AT_ONCE = 1024  # logits of a large vocabulary are the largest tensor here


@final
@dataclass(frozen=True)
class Passage:
    """Sequences for one forward pass.

    Attributes:
        inputs: of the model: input_ids, attention_mask, position_ids, each (batch, longest).
        edited: positions whose activation is replaced.
        scored: positions at or after the first edited one whose next token is known, in the same document.
        compared: positions at or after the first edited one.
    """

    inputs: dict[str, Tensor]
    edited: Tensor
    scored: Tensor
    compared: Tensor


@final
@dataclass(frozen=True)
class Spliced:
    """What the language model loses on one held-out text, for each unit.

    Attributes:
        losses: By unit, the loss with its reconstructions and how much of it they recover.
        divergences: By unit, the KL divergence of next-token distributions.
        tokens: Tokens whose activations were replaced.
        compared: Tokens over which KL is a mean: those at or after the first replaced one of their sequence.
        scored: Tokens over which losses are means: those of them whose next token is known.
    """

    losses: Mapping[str, LossRecovered]
    divergences: Mapping[str, NextTokenKL]
    tokens: int = 0
    compared: int = 0
    scored: int = 0

    def row(self, name: str) -> dict[str, float | int]:
        """Returns the numbers of one unit: those of `LossRecovered`, `kl`, and the sample sizes `samples_loss` and
        `samples_compared`. Losses are NaN where no next token is known.
        """
        found = {key: value.item() for key, value in self.losses[name].compute().items()}
        kl = self.divergences[name].compute().item()
        return found | {"kl": kl, "samples_loss": self.tokens, "samples_compared": self.compared}


@torch.inference_mode()
def splice(
    model: nn.Module, point: HookPoint, rows: Rows, mean: Tensor, units: Mapping[str, Edit], tokens: int
) -> Spliced:
    """Runs held-out text through the model with the activations at one hook point replaced.

    Only the positions that were harvested are replaced (not position 0, special tokens or outliers), and positions
    before the first of them in a sequence, which cannot change, are left out of every mean. Where few are replaced (one
    a prompt in CounterFact) the loss moves so little that loss recovered, a quotient of differences, is not readable;
    KL is. Cost: 3 + len(units) forward passes over the text.

    Args:
        model: all layers, with its language-model head.
        point: of the activations.
        rows: of the held-out split.
        mean: (d_in,) for the mean ablation.
        units: by name, activations (n, d_in) to reconstructions.
        tokens: replaced in all, at least (all if there are fewer).

    Returns:
        The losses and the divergences of each unit, and the numbers of tokens replaced, compared and scored.
    """
    ablations: dict[str, Edit] = {"zero": torch.zeros_like, "mean": lambda x: mean.expand_as(x)}
    losses, divergences = {name: LossRecovered() for name in units}, {name: NextTokenKL() for name in units}
    done = compared = scored = 0
    kind, _ = axis_orders(model, [point], rows.store.origins.sequences.input_ids[:_TOKENS_AT_ONCE])[point]
    with token_bar(tokens, "splice") as bar:
        for passage in passages(rows, tokens):
            clean = _logits(model, point, kind, passage, None)
            original = _cross_entropies(clean, passage)
            zero, average = (
                _cross_entropies(_logits(model, point, kind, passage, edit), passage) for edit in ablations.values()
            )
            for name, edit in units.items():
                logits = _logits(model, point, kind, passage, edit)
                losses[name].update(original, _cross_entropies(logits, passage), zero, average)
                divergences[name].update(clean, logits)
            replaced_now = int(passage.edited.sum())
            done, compared, scored = done + replaced_now, compared + len(clean), scored + len(original)
            bar.update(replaced_now)
    return Spliced(losses, divergences, done, compared, scored)


def passages(rows: Rows, tokens: int) -> Iterator[Passage]:
    """Groups whole sequences into passages, in a fixed random order, until they hold enough rows.

    Args:
        rows: of one split. Sequences without any of them are skipped.
        tokens: number of rows that the passages hold in all, at least (all if there are fewer).

    Yields:
        Passages of one or more sequences, padded on the right.
    """
    sequences = rows.store.origins.sequences
    wanted = torch.zeros_like(sequences.keep)
    wanted[sequences.keep.nonzero().squeeze(1)[rows.numbers]] = True
    order = torch.randperm(len(sequences.lengths), generator=torch.Generator().manual_seed(0)).tolist()
    pending: list[slice] = []
    for number in order:
        span = slice(int(sequences.offsets[number]), int(sequences.offsets[number + 1]))
        if not wanted[span].any():
            continue
        pending.append(span)
        tokens -= int(wanted[span].sum())
        longest = max(s.stop - s.start for s in pending)
        if tokens <= 0 or (len(pending) + 1) * longest > _TOKENS_AT_ONCE:
            yield _passage(sequences.input_ids, sequences.position, wanted, pending)
            pending = []
        if tokens <= 0:
            return
    if pending:
        yield _passage(sequences.input_ids, sequences.position, wanted, pending)


def _passage(ids: Tensor, position: Tensor, wanted: Tensor, spans: list[slice]) -> Passage:
    def pad(values: Tensor) -> Tensor:
        return nn.utils.rnn.pad_sequence([values[span] for span in spans], batch_first=True)

    mask = pad(torch.ones_like(ids, dtype=torch.bool))
    places, edited = pad(position.long()), pad(wanted)
    places = torch.where(mask, places, torch.arange(mask.shape[1]))
    inputs = {"input_ids": pad(ids.long())}
    if (places != torch.arange(places.shape[1])).any():  # documents that do not see one another
        inputs["position_ids"] = places
    if not mask.all():
        inputs["attention_mask"] = mask.long()
    after = mask & (edited.cumsum(1) > 0)
    following = torch.zeros_like(mask)
    following[:, :-1] = mask[:, 1:] & (places[:, 1:] > 0)
    return Passage(inputs, edited, after & following, after)


def _logits(model: nn.Module, point: HookPoint, kind: AxisOrder, passage: Passage, edit: Edit | None) -> Tensor:
    """(compared tokens, vocabulary) float32."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in passage.inputs.items()}
    hook = (
        None if edit is None else lambda value: edited_at(value, kind, passage.edited, lambda x: edit(x.float().cpu()))
    )
    with replaced(model, point, hook):
        logits = model(**inputs, use_cache=False).logits
    return logits[passage.compared.to(device)].float()


def _cross_entropies(logits: Tensor, passage: Passage) -> Tensor:
    """Of the tokens that are scored, in nats, float32 (scored tokens,)."""
    following = passage.inputs["input_ids"].roll(-1, 1)[passage.compared].to(logits.device)
    scored = passage.scored[passage.compared].to(logits.device)
    return -logits.log_softmax(-1).gather(1, following[:, None]).squeeze(1)[scored]
