"""A splice into a model that `device_map` has spread over devices, memory and disk does what it does on one device.

accelerate moves the arguments of a module to the device of its weights, and leaves its result there. `placed` does the same with
the pretended second device, on which a tensor of the host must not appear.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import AutoModelForCausalLM

from atomlab import ThresholdSAE, add, splice
from atomlab.evaluation.rows.splicing import splice as spliced_losses
from tests import spread_model
from tests.second_device import DEVICE, second_device
from tests.spread_model import harvested, on_disk, spread

HOST = torch.device("cpu")
IDS = torch.arange(4, 40)[None]
POINTS = [f"model.layers.{layer}.{side}" for layer in (0, 1, 2) for side in ("input", "output")]
POINTS += ["model.layers.1.mlp.output", "model.layers.1.self_attn.output"]
ON_DISK = on_disk(1, 2)


def sae() -> ThresholdSAE:
    torch.manual_seed(2)
    return ThresholdSAE(32, 40).requires_grad_(False)


def whole(tiny: Path) -> nn.Module:
    return spread_model.whole(tiny).load()


@torch.no_grad()
def logits(model: nn.Module, own: ThresholdSAE, point: str) -> torch.Tensor:
    """With the SAE in place and atom 1 raised by 3 in all tokens but the first."""
    with splice(model, own, point, add(3.0, 1)):
        return model(input_ids=IDS).logits


def placed(module: nn.Module, device: torch.device) -> None:
    forward = module.to(device).forward

    def moved(*args: Any, **kwargs: Any) -> Any:
        return forward(*send_to_device(args, device), **send_to_device(kwargs, device))

    module.forward = moved


@pytest.mark.parametrize("device_map", ["auto", ON_DISK, {"": "disk"}], ids=["auto", "layers on disk", "all on disk"])
def test_in_memory_and_on_disk_the_logits_are_the_same_to_the_bit(tiny: Path, tmp_path: Path, device_map: Any) -> None:
    """Not reported: a model whose first weights are on the disk could not be spliced; its tokens were sent to where those are."""
    model = AutoModelForCausalLM.from_pretrained(
        tiny / "model", dtype=torch.float32, device_map=device_map, offload_folder=str(tmp_path)
    )
    assert (device_map != "auto") == any(weight.is_meta for weight in model.parameters())
    for point in POINTS:
        assert torch.equal(logits(model.eval(), sae(), point), logits(whole(tiny), sae(), point))


@pytest.mark.parametrize("where", [HOST, DEVICE], ids=["SAE on the first", "SAE on the second"])
def test_on_two_devices_the_logits_are_those_of_one(tiny: Path, where: torch.device) -> None:
    clean = whole(tiny)(IDS).logits
    expected = {point: logits(whole(tiny), sae(), point) for point in POINTS}
    devices: list[torch.device] = []
    with second_device():
        model: Any = whole(tiny)
        placed(model.model.layers[1], DEVICE)
        for later in (model.model.layers[2], model.model.norm, model.lm_head):
            placed(later, HOST)
        model.model.layers[1].register_forward_hook(lambda _m, _a, output: devices.append(output.device))
        found = {point: logits(model, sae().to(where), point) for point in POINTS}
    assert set(devices) == {DEVICE}
    for point in POINTS:
        torch.testing.assert_close(found[point], expected[point])
        assert (expected[point] - clean).abs().max() > 0.01


def test_the_spliced_losses_of_a_table_are_the_same_to_the_bit(tiny: Path, tmp_path: Path) -> None:
    model = spread(tiny, tmp_path / "off", ON_DISK)
    data = harvested(tiny, model, tmp_path / "cache", layer=1)
    own, mean = sae(), data.moments.mean.float()
    rows = [
        spliced_losses(loaded, data.point, data.rows["test"], mean, {"atoms": own}, tokens=100).row("atoms")
        for loaded in (model.load(), whole(tiny))
    ]
    assert rows[0] == rows[1]
    assert rows[0]["loss"] != rows[0]["loss_clean"]
