"""ReLU, TopK, BatchTopK and Gated train by the same module, to the L0 that they were asked for."""

import math
from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything

from atomlab import load, save_sae
from atomlab.activations.store.moments import exact_moments
from atomlab.groups import Groups
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.sae import L0, BaselineSAE, BatchTopK, Gated, Incoherence, Relu, TargetL0, TopK, l0_number
from atomlab.sae.ops import baseline_objective
from atomlab.sae.ops.baseline_objective import dead_latents_loss
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm, FinalCalibration
from atomlab.training.l1_control import L1Control
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.recipe import Architecture, Calibration, Revival, TrainingRecipe, check_together
from atomlab.training.vectors import VectorsDataModule
from tests.training.runs import QUIET

KINDS = {"relu": Relu, "top_k": TopK, "batch_top_k": BatchTopK, "gated": Gated}
ATOMS = torch.nn.functional.normalize(torch.randn(24, 12, generator=torch.Generator().manual_seed(0)), dim=1)
TARGET = 3.0


def drawn(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(count, 24, generator=generator) < TARGET / 24
    return (fires * (0.5 + torch.rand(count, 24, generator=generator))) @ ATOMS


def recipe(kind: str, **more: object) -> TrainingRecipe:
    coefficient = 1 / 32 if "top_k" in kind else 0.0
    settings = {"noise": 0.0, "incoherence": Incoherence(0.0), "revival": Revival(1000, coefficient)} | more
    return TrainingRecipe(TargetL0(1.0, TARGET), **settings)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_held_out_vectors_have_the_target(tmp_path: Path, kind: str) -> None:
    data = VectorsDataModule(drawn(1500, 1), exact_moments(drawn(1500, 1)), batch_size=64, steps=60)
    seed_everything(0, verbose=False)
    module = build(data, Architecture(3.0, alpha=0.0, tied=False, activation=kind), recipe(kind))  # type: ignore[arg-type]
    x = data.sample("validation", 1500)

    def unexplained() -> float:
        with torch.no_grad():
            return float((x - module.folded()(x)).square().sum() / (x - x.mean(0)).square().sum())

    before = unexplained()
    trainer = Trainer(
        callbacks=[DecoderNorm(), FinalCalibration(), LastCheckpoint(str(tmp_path), every=50)], default_root_dir=tmp_path,
        max_steps=60, limit_val_batches=0, enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(module, data)
    after = unexplained()
    assert after < 0.5 < before or after < 0.5 * before
    sae = module.sae
    assert isinstance(sae, BaselineSAE)
    assert isinstance(sae.activation, KINDS[kind])
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae))
    with torch.no_grad():
        fired = int((sae.encode(module.transform(x)) > 0).sum())
        assert abs(fired / len(x) - TARGET) < 0.01
        assert abs(int((module.folded().encode(x) > 0).sum()) - fired) <= 3  # rounding of the folded weights
    saved, transform = load_checkpoint(tmp_path / "last.ckpt")
    assert saved.state_dict().keys() == sae.state_dict().keys()
    assert all(torch.equal(value, sae.state_dict()[name]) for name, value in saved.state_dict().items())
    assert torch.equal(transform.mean, module.transform.mean)
    save_sae(module.folded(), tmp_path / "sae", {})
    with torch.no_grad():
        read = load(tmp_path / "sae")
        torch.testing.assert_close(read(x), module.folded()(x), rtol=1e-4, atol=1e-5)


def small(activation: Relu | TopK | BatchTopK | Gated) -> tuple[BaselineSAE, torch.Tensor]:
    torch.manual_seed(3)
    sae = BaselineSAE(4, 7, activation).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return sae, torch.randn(5, 4, dtype=torch.float64)


NO_DEAD = torch.zeros(7, dtype=torch.bool)


def test_the_terms_of_relu_and_gated_are_those_of_their_papers() -> None:
    sae, x = small(Relu())
    terms, codes = baseline_objective(sae, x, 0.3, NO_DEAD, 0.0), sae.encode(x)
    torch.testing.assert_close(terms.reconstruction, (x - sae(x)).square().sum(1).mean())
    torch.testing.assert_close(terms.sparsity, 0.3 * codes.sum(1).mean())
    sae, x = small(Gated(7))
    target = x + 1
    terms, gate = baseline_objective(sae, x, 0.3, NO_DEAD, 0.0, target), sae.pre_activations(x).relu()
    alone = (target - gate @ sae.W_dec - sae.b_dec).square().sum(1).mean()
    torch.testing.assert_close(terms.reconstruction, (target - sae(x)).square().sum(1).mean())
    torch.testing.assert_close(terms.sparsity, 0.3 * gate.sum(1).mean() + alone)
    terms.sparsity.backward()
    assert sae.W_dec.grad is None  # the decoder is frozen in the gate's own reconstruction
    assert sae.b_enc.grad is not None
    assert bool(sae.b_enc.grad.any())


@pytest.mark.parametrize("activation", [TopK(2), BatchTopK(2, 0.1)])
def test_dead_latents_reconstruct_what_is_left(activation: TopK | BatchTopK) -> None:
    sae, x = small(activation)
    dead = torch.tensor([False, True, True, False, True, False, False])
    terms = baseline_objective(sae, x, 9.9, dead, 0.5)
    sae.requires_grad_(False)
    z = sae.pre_activations(x).detach()
    left = (x - sae.decode(sae.batch_code(x).values)).detach()
    total = 0.0
    for i in range(5):
        best = sorted([1, 2, 4], key=lambda j: -float(z[i, j]))[:2]  # d_in / 2 of them
        found = sum((max(0.0, float(z[i, j])) * sae.W_dec[j] for j in best), torch.zeros(4).double())
        total += float((left[i] - found).square().sum()) / 5
    assert float(terms.sparsity.detach()) == pytest.approx(0.5 * total)
    assert float(baseline_objective(sae, x, 9.9, NO_DEAD, 0.5).sparsity) == 0
    one = torch.tensor([False] * 6 + [True])
    halved = dead_latents_loss(sae, z[:, one], left, one)  # one dead latent where two would be taken
    found = z[:, 6:].relu() @ sae.W_dec[6:]
    assert float(halved) == pytest.approx(0.5 * float((left - found).square().sum(1).mean()))


def test_the_coefficient_of_the_l1_term_follows_the_l0() -> None:
    control = L1Control()
    start = float(control.coefficient)
    control.observe(torch.tensor(8.0), 8.0)
    assert float(control.coefficient) == pytest.approx(start)
    control.observe(torch.tensor(8.0 * 1.5), 8.0)
    assert float(control.coefficient) == pytest.approx(start * 1.5**0.02)
    control.observe(torch.tensor(0.0), 8.0)  # cut off
    assert float(control.coefficient) == pytest.approx(start * 1.5**0.02 * math.exp(-0.02))


@torch.no_grad()
@pytest.mark.parametrize("activation", [Relu(), BatchTopK(2), Gated(7)])
def test_one_level_gives_every_l0_to_the_single_firing(activation: Relu | BatchTopK | Gated) -> None:
    sae, _ = small(activation)
    x = torch.randn(301, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for target in (0.4, 1.0, 2.2, 1.3):
        number = l0_number(sae, x, target, block=40)
        assert number is not None
        sae.settle_(number)
        assert int((sae.encode(x) > 0).sum()) == round(301 * target)
    if not isinstance(activation, Relu):  # whose bias may rise without end
        with pytest.raises(ValueError, match=r"No level gives a mean L0 of 6\.9"):
            l0_number(sae, x, 6.9)
    with pytest.raises(ValueError, match="below d_sae=7"):
        l0_number(sae, x, 7.0)


def test_top_k_has_its_l0_whatever_is_asked() -> None:
    sae, x = small(TopK(2))
    assert l0_number(sae, x, 3.0) is None


@pytest.mark.parametrize(
    ("architecture", "change", "words"),
    [
        ({"activation": "relu", "tied": True}, {}, "sae.tied=true is for sae.activation=threshold"),
        ({"activation": "soft", "tied": False}, {}, "sae.activation=soft is unknown"),
        ({"activation": "gated", "tied": False}, {"revival": Revival(100, 0.1)}, "does not have"),
    ],
)
def test_what_does_not_belong_together_is_refused(architecture: dict, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_together(Architecture(**architecture), recipe("relu", **change))


def test_processes_share_no_baseline() -> None:
    architecture = Architecture(tied=False, activation="gated")
    with pytest.raises(ValueError, match=r"latents=2 processes can share a TSAE only, and sae\.activation=gated: use"):
        check_together(architecture, recipe("gated"), Groups.of_ranks(0, 2, latents=2))
    replicas = Groups.of_ranks(1, 2)
    check_together(architecture, recipe("gated"), replicas)
    shard = architecture.new_sae(3, 2.0, replicas).shard
    assert shard.is_whole
    assert shard.groups == replicas


def test_a_baseline_needs_a_target() -> None:
    given = TrainingRecipe(L0(1e-3), calibration=Calibration(l0=3.0))
    with pytest.raises(ValueError, match=r"sae\.activation=top_k is trained to a mean L0"):
        check_together(Architecture(tied=False, activation="top_k"), given)
