"""Every metric takes 16-bit input (faults.md D10), and does not see an autocast that is on around it (B1, D2)."""

import pytest
import torch

from tests.metrics.test_contract import CASES, Metric


def updated(name: str, dtype: torch.dtype, stored: torch.dtype, ambient: torch.dtype | None) -> list[torch.Tensor]:
    """The value after an update with inputs rounded to `dtype` and kept in `stored`."""
    build, batch = CASES[name]

    def kept(part: object) -> object:
        floating = isinstance(part, torch.Tensor) and part.is_floating_point()
        return part.to(dtype).to(stored) if floating else part

    with torch.autocast("cpu", ambient or torch.bfloat16, enabled=ambient is not None):
        made: Metric = build()
        made.update(*(kept(part) for part in batch(slice(None))))
        value = made.compute()
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_16_bit_input_and_autocast_change_nothing(name: str, dtype: torch.dtype) -> None:
    expected = updated(name, dtype, torch.float32, None)
    for found in (updated(name, dtype, dtype, None), updated(name, dtype, torch.float32, dtype)):
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))
