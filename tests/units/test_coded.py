"""One dictionary with any coder at a wanted L0: the L0 is met, and codes are those of the coder itself."""

import pytest
import torch
from torch import Tensor

from atomlab import encode
from atomlab.coders import calibrate_threshold_pursuit, nonnegative_omp, omp
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct
from atomlab.units import CODERS, coded
from tests.coders.cases import metric_of, problem, trained


@pytest.fixture(scope="module")
def made() -> tuple[ThresholdSAE, Tensor, Tensor, AtomicInnerProduct]:
    x, dictionary, bias = problem(samples=600, d_sae=48, d_in=24)
    s = metric_of(24)
    return trained(dictionary, bias, s, level=0.5), x[:300], x[300:], s


Made = tuple[ThresholdSAE, Tensor, Tensor, AtomicInnerProduct]


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("target", [1.4, 2.5, 4.0, 6.7])
def test_codes_have_the_wanted_l0_on_the_calibration_vectors(made: Made, coder: str, target: float) -> None:
    sae, x, fresh, s = made
    unit = coded("atoms", sae, coder, target, x, s)
    sizes = (unit.encode(x).to_dense() != 0).sum(1).double()
    assert sizes.mean() == pytest.approx(target, rel=0.02)
    assert (unit.name, unit.source, unit.coder) == (f"atoms + {CODERS[coder]}", "atoms", CODERS[coder])
    assert unit.signed == (coder == "omp")
    if not unit.signed:
        assert (unit.encode(fresh).to_dense() >= 0).all()
    torch.testing.assert_close(unit.reconstruct(fresh), unit.encode(fresh).to_dense() @ sae.W_dec + sae.b_dec)


def test_codes_are_those_of_the_coder(made: Made) -> None:
    sae, x, fresh, s = made

    def code(coder: str, target: float = 4.0) -> Tensor:
        return coded("atoms", sae, coder, target, x, s).encode(fresh).to_dense()

    for coder, l0, stages in (
        ("refit", 4.0, 1),
        ("threshold_pursuit", 6.0, 4),
        ("stepwise_pursuit", 6.0, 6),
        ("stepwise_pursuit", 2.7, 3),
    ):
        pursuit = calibrate_threshold_pursuit(sae, x, l0, stages, s)
        expected = encode(sae, fresh, "threshold_pursuit", pursuit=pursuit, metric=s).to_dense()
        torch.testing.assert_close(code(coder, l0), expected)
    torch.testing.assert_close(code("omp"), omp(fresh - sae.b_dec, sae.W_dec, 4, s).to_dense())
    one_step = coded("atoms", sae, "threshold", 4.0, x, s)
    own, found = encode(sae, fresh).to_dense(), one_step.encode(fresh).to_dense()
    both = (own != 0) & (found != 0)
    torch.testing.assert_close(own[both], found[both])  # the factor decides who fires, not how strongly


@pytest.mark.parametrize("coder", ["omp", "nonnegative_omp"])
def test_between_two_k_those_vectors_get_a_step_more_that_gain_most(made: Made, coder: str) -> None:
    sae, x, _, s = made
    search = omp if coder == "omp" else nonnegative_omp
    found = coded("atoms", sae, coder, 2.5, x, s).encode(x).to_dense()
    y = x - sae.b_dec
    short, long = (search(y, sae.W_dec, k, s).to_dense() for k in (2, 3))
    longer = (found == long).all(1) & ~(short == long).all(1)
    assert ((found == short).all(1) | longer).all()
    lost = [s.norm(y - code @ sae.W_dec).square() for code in (short, long)]
    gains = lost[0] - lost[1]
    assert 0 < longer.sum() < len(x)
    assert gains[longer].min() >= gains[~longer & ~(short == long).all(1)].max() - 1e-9


def test_the_tsae_stays_as_it_is(made: Made) -> None:
    sae, x, _, s = made
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    for coder in CODERS:
        coded("atoms", sae, coder, 3.0, x, s)
    for name, value in sae.state_dict().items():
        assert torch.equal(value, before[name])
