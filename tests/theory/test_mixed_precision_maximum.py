"""The screened maximum is that of float64 arithmetic, also where float32 orders the atoms wrongly."""

import pytest
import torch

from atomlab.theory.mixed_precision_maximum import FLOAT32_ROUNDOFF, mixed_precision_maximum
from atomlab.theory.supports import supports

N, D, SAMPLES = 60, 12, 200


@pytest.mark.parametrize("tile", [1, 7, N, 2 * N])
@pytest.mark.parametrize("near_twins", [4, 40])  # a few candidates are scored again; of many, the whole tile is
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_maximum_of_near_twins_is_float64s(tile: int, near_twins: int, sign: float) -> None:
    generator = torch.Generator().manual_seed(near_twins)
    unit = torch.randn(N, D, generator=generator, dtype=torch.float64)
    unit[10 : 10 + near_twins] = unit[10] + 1e-9 * unit[10 : 10 + near_twins]  # float32 cannot tell them apart
    unit /= unit.norm(dim=1, keepdim=True)
    codes = (torch.rand(SAMPLES, N, generator=generator) < 0.1).double()
    vectors = sign * unit[10] + 0.3 * torch.randn(SAMPLES, D, generator=generator, dtype=torch.float64)
    by_dtype = {dtype: (vectors.to(dtype), unit.to(dtype)) for dtype in (torch.float32, torch.float64)}

    def estimate(columns: slice, dtype: torch.dtype) -> torch.Tensor:
        v, u = by_dtype[dtype]
        return v @ u[columns].T

    def exact(rows: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
        return (vectors[rows] * unit[atoms]).sum(1)

    competing = (vectors @ unit.T).masked_fill(codes > 0, -torch.inf)
    if sign > 0:  # the case is a hard one: rounding puts another atom first on some samples
        first = (by_dtype[torch.float32][0] @ by_dtype[torch.float32][1].T).masked_fill(codes > 0, -torch.inf).argmax(1)
        assert (first != competing.argmax(1)).any()
    error = 1.01 * (D + 4) * FLOAT32_ROUNDOFF * vectors.norm(dim=1)
    found = mixed_precision_maximum(N, supports(codes), error, estimate, exact, tile=tile)
    torch.testing.assert_close(found, competing.amax(1).clamp(min=0), rtol=0, atol=1e-14)


def test_no_competitor_gives_zero() -> None:
    everything, scores = supports(torch.ones(3, 5)), torch.ones(3, 5, dtype=torch.float64)
    found = mixed_precision_maximum(
        5,
        everything,
        torch.zeros(3, dtype=torch.float64),
        lambda columns, dtype: scores[:, columns].to(dtype),
        lambda rows, atoms: scores[rows, atoms],
        tile=2,
    )
    assert found.tolist() == [0, 0, 0]
