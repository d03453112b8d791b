"""Splicing: what must be exact is exact, and the clean loss is the model's own."""

import math
from collections.abc import Callable

import pytest
import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.replacing import replaced
from atomlab.activations.model.sites import HookPoint
from atomlab.evaluation.rows.splicing import Spliced, passages, splice
from atomlab.metrics import LossRecovered, NextTokenKL


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("site", ["resid_post", "mlp_hidden", "attn_out"])
def test_perfect_reconstruction_recovers_all_and_ablation_nothing(
    data_of: Callable[..., ActivationDataModule], family: str, site: str
) -> None:
    data = data_of(family, site)
    mean = data.moments.mean.float()
    edits = {"perfect": lambda x: x, "zero": torch.zeros_like, "mean": lambda x: mean.expand_as(x)}
    found = splice(data.model.load(), data.point, data.rows["test"], mean, edits, tokens=100)
    assert found.tokens >= 100
    perfect, zero, average = (found.row(name) for name in edits)
    assert (perfect["loss_recovered_zero"], perfect["loss_recovered_mean"]) == (1.0, 1.0)
    assert perfect["kl"] == pytest.approx(0, abs=1e-9)
    assert zero["loss_recovered_zero"] == 0.0
    assert average["loss_recovered_mean"] == 0.0
    assert zero["kl"] > 1e-6
    assert average["loss"] != zero["loss"]


def test_the_clean_loss_is_the_models_own(data_of: Callable[..., ActivationDataModule]) -> None:
    """Against Hugging Face's own loss over the same positions, one document at a time."""
    data = data_of()
    rows, model = data.rows["test"], data.model.load()
    found = splice(model, data.point, rows, data.moments.mean.float(), {"a": torch.zeros_like}, tokens=10**9)
    sequences = rows.store.origins.sequences
    starts = (sequences.position == 0).nonzero().squeeze(1).tolist()
    total, count = 0.0, 0
    for start, stop in zip(starts, [*starts[1:], len(sequences.position)], strict=True):
        ids = sequences.input_ids[start:stop].long()[None]
        sequence_start = sequences.offsets[sequences.offsets <= start].max()
        scored = ids.clone()
        if start == sequence_start:
            scored[0, 1] = -100  # its prediction stands at position 0, which is not edited: nothing changes up to there
        if ids.shape[1] > (2 if start == sequence_start else 1):
            logits = model(input_ids=ids).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, scored[0, 1:], ignore_index=-100, reduction="sum")
            total, count = total + float(losses), count + int((scored[0, 1:] != -100).sum())
    assert found.scored == count
    assert found.row("a")["loss_clean"] == pytest.approx(total / count, rel=1e-5)


def test_only_harvested_positions_are_edited(data_of: Callable[..., ActivationDataModule]) -> None:
    data = data_of()
    seen = sum(int(passage.edited.sum()) for passage in passages(data.rows["test"], 10**9))
    assert seen == len(data.rows["test"])
    for passage in passages(data.rows["test"], 10**9):
        assert not passage.edited[:, 0].any()
        assert not passage.scored[:, -1].any()


def test_hooks_change_inputs_outputs_and_tuples_and_leave_with_the_context() -> None:
    class Twice(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, extra: int = 0) -> tuple[torch.Tensor, int]:
            return 2 * hidden_states, extra

    model = torch.nn.ModuleDict({"part": Twice()})
    x = torch.ones(2)
    for side, expected in (("input", 4.0), ("output", 3.0)):
        with replaced(model, HookPoint("part", side), lambda value: value + 1):
            assert model["part"](x, extra=5)[0][0] == expected
            assert model["part"](hidden_states=x, extra=5)[1] == 5
        assert model["part"](x)[0][0] == 2


def test_without_a_next_token_there_is_no_loss_but_a_divergence() -> None:
    losses, divergence = LossRecovered(), NextTokenKL()
    losses.update(*torch.zeros(4, 0))
    divergence.update(torch.tensor([[0.0, 0.0]] * 2), torch.tensor([[0.0, math.log(3)]] * 2))
    row = Spliced({"a": losses}, {"a": divergence}, 2, 2).row("a")
    assert math.isnan(row["loss_recovered_zero"])
    assert row["kl"] == pytest.approx(math.log(2 / 3**0.5))  # half of ln(½ / ¼) and half of ln(½ / ¾)
