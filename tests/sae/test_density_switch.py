"""The choice between implementations follows the counted density, with hysteresis, and comes back from a checkpoint."""

import logging
from pathlib import Path

import pytest
import torch

from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import Dense, DensitySwitch, Implementation, Sparse, TorchKernels
from atomlab.sae.sparse_code import Code


def code_of_density(sae: ThresholdSAE, density: float) -> Code:
    z = torch.full((8, 100), -1.0)
    z[:, : round(100 * density)] = 1.0
    return Code(z, sae.activate(z), None, 8)


def test_it_switches_there_and_back_and_logs_both(caplog: pytest.LogCaptureFixture) -> None:
    sae, switch = ThresholdSAE(4, 100), DensitySwitch(enter=0.1, leave=0.2)
    caplog.set_level(logging.DEBUG, "atomlab")
    chosen = []
    for density in [0.5] * 3 + [0.0] * 30 + [0.15] * 50 + [0.5] * 10:
        switch.observe(sae, code_of_density(sae, density))
        chosen.append(switch.is_sparse)
    assert not any(chosen[:3])
    assert chosen[32]
    assert all(chosen[33:83])  # between the limits nothing changes
    assert not chosen[-1]
    assert [record.getMessage().split()[3] for record in caplog.records] == ["sparse", "dense"]


def test_the_first_step_is_chosen_by_counting_on_its_batch() -> None:
    torch.manual_seed(0)
    sae, x = ThresholdSAE(16, 100), torch.randn(300, 16)
    with torch.no_grad():
        sae.threshold.fill_(100.0)
    assert isinstance(DensitySwitch().choose(sae, x), Sparse)
    with torch.no_grad():
        sae.threshold.fill_(0.0)
    assert isinstance(DensitySwitch().choose(sae, x), Dense)


def test_dense_and_sparse_codes_count_alike() -> None:
    torch.manual_seed(0)
    sae, x = ThresholdSAE(16, 100), torch.randn(800, 16)
    with torch.no_grad():
        sae.threshold.fill_(2.0)
        sae.threshold.add_(torch.linspace(-1, 1, 100))
    dense, sparse = DensitySwitch(), DensitySwitch()
    dense.observe(sae, Dense().encode(sae, x.repeat_interleave(7, 0)))  # every seventh row is counted
    sparse.observe(sae, Sparse(TorchKernels(screened=False)).encode(sae, x))
    assert dense.density == pytest.approx(sparse.density, rel=1e-6)


@pytest.mark.parametrize(
    ("word", "density", "screened"),
    [("auto", 0.01, None), ("auto", 0.06, False), ("screened", 0.06, True), ("sparse", 0.01, False)],
)
def test_dense_codes_are_not_screened_unless_that_was_asked_for(
    word: Implementation, density: float, screened: bool | None
) -> None:
    sae, switch = ThresholdSAE(4, 100), DensitySwitch.of(word)
    switch.observe(sae, code_of_density(sae, density))
    operators = switch.choose(sae, torch.zeros(8, 4))
    assert isinstance(operators, Sparse)
    assert operators.kernels == TorchKernels(screened)


def test_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    sae, switch = ThresholdSAE(4, 100), DensitySwitch()
    switch.observe(sae, code_of_density(sae, 0.01))
    torch.save(switch.state_dict(), tmp_path / "state.pt")
    other = DensitySwitch()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.density, other.is_sparse) == (switch.density, True)


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"enter=0\.3"):
        DensitySwitch(0.3, 0.2)
