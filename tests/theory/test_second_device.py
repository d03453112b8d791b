"""Tensors of a device never meet tensors of the host (faults.md D1), shown without a GPU."""

import pytest
import torch

from tests.second_device import DEVICE, DeviceTensor, second_device
from tests.theory.calls import CALLS, Inputs, inputs, numbers


def test_the_pretended_device_refuses_what_a_real_one_does() -> None:
    with second_device():
        a, b = torch.ones(3).to(DEVICE), torch.arange(3.0, device=DEVICE)
        assert isinstance(b, DeviceTensor)
        assert (a + b).device == DEVICE
        assert (a + b).cpu().tolist() == [1, 2, 3]
        assert (a * torch.tensor(2.0)).sum().item() == 6
        for mixed in (lambda: a + torch.ones(3), lambda: torch.cat([a, torch.ones(3)]), lambda: a[torch.tensor([0])]):
            with pytest.raises(RuntimeError, match="mixes devices"):
                mixed()


@pytest.mark.parametrize("name", CALLS)
def test_public_functions_stay_on_their_device(name: str) -> None:
    """D1: supports drawn on the host were joined with grown ones on the dictionary's device, at every validation."""
    given = inputs()
    expected = numbers(CALLS[name](given))
    with second_device():
        placed = Inputs(*(tensor.to(DEVICE) for tensor in (given.dictionary, given.codes, given.x)), given.metric)
        found = numbers(CALLS[name](placed))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
