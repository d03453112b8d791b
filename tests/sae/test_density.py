"""The density that decides between the implementations is a running mean of what the steps counted."""

import pytest
import torch

from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import Dense, DensitySwitch


def observe(switch: DensitySwitch, sae: ThresholdSAE, firing: int) -> None:
    """A step on eight equal vectors on which `firing` of the 100 latents fire."""
    with torch.no_grad():
        sae.b_enc.fill_(-1.0)
        sae.b_enc[:firing] = 1.0
    switch.observe(sae, Dense().encode(sae, torch.zeros(8, 4)))


def test_ten_steps_count_about_as_much_as_all_before_them() -> None:
    sae, switch = ThresholdSAE(4, 100), DensitySwitch()
    expected = 0.6
    observe(switch, sae, 60)
    for firing in (10, 30, 0):
        observe(switch, sae, firing)
        expected = 0.9 * expected + 0.1 * firing / 100
    assert switch.density == pytest.approx(expected, rel=1e-6)


def test_dense_stays_dense_however_few_latents_fire() -> None:
    sae, switch = ThresholdSAE(4, 100), DensitySwitch.of("dense")
    for _ in range(3):
        observe(switch, sae, 0)
        assert isinstance(switch.choose(sae, torch.zeros(8, 4)), Dense)
