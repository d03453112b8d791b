"""`atomlab.fit`: from vectors to an SAE, whatever space they span and however they come."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

import atomlab
from atomlab.activations.store.moments import exact_moments
from atomlab.sae import BaselineSAE, ThresholdSAE, TopK
from atomlab.theory import mean_matched_cosine
from atomlab.training.fit import subspace
from atomlab.training.kinds import defaults_of, with_changes

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice
FEATURES = torch.linalg.qr(torch.randn(32, 16, generator=torch.Generator().manual_seed(0)))[0].T  # 16 in 32 dimensions


def drawn(count: int, seed: int) -> Tensor:
    """Two of sixteen orthonormal features at a time, on the average; float32 rounding in all 32 directions."""
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(count, 16, generator=generator) < 2 / 16
    return (fires * (0.5 + torch.rand(count, 16, generator=generator))) @ FEATURES


def test_sixteen_features_in_thirty_two_dimensions_are_found() -> None:
    before = torch.random.get_rng_state()
    sae = atomlab.fit(drawn(3000, 1), d_sae=24, l0=2.0, steps=150, batch_size=128)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(sae, ThresholdSAE)
    assert (sae.d_in, sae.d_sae) == (32, 24)
    x = drawn(1000, 2)
    with torch.no_grad():
        assert float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()) < 0.1
        assert abs(float((sae.encode(x) > 0).sum(1).double().mean()) - 2.0) < 0.3
    outside = sae.W_dec.detach() - sae.W_dec.detach() @ FEATURES.T @ FEATURES
    assert float(outside.abs().max()) < 1e-5  # atoms lie where the vectors do
    assert mean_matched_cosine(FEATURES, sae.W_dec.detach()) > 0.95


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_the_rank_is_that_of_the_data_and_not_of_its_rounding(rank: int) -> None:
    mixing = torch.randn(400, rank, generator=torch.Generator().manual_seed(3))
    x = mixing @ FEATURES[:rank]
    basis = subspace(exact_moments(x), torch.finfo(torch.float32).eps)
    assert basis is not None
    assert basis.shape == (32, rank)
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank), rtol=0, atol=1e-6)
    torch.testing.assert_close(x @ basis @ basis.T, x, rtol=0, atol=1e-5)
    noisy = x + 1e-4 * torch.randn(400, 32, generator=torch.Generator().manual_seed(4))  # small, and no rounding
    assert subspace(exact_moments(noisy), torch.finfo(torch.float32).eps) is None


def test_a_stream_is_read_as_far_as_it_is_needed_and_gives_what_an_array_gives() -> None:
    blocks = [drawn(2000, seed) for seed in range(8)]
    read = 0

    def stream() -> Iterator[Tensor]:
        nonlocal read
        for block in [*blocks, *blocks]:  # an endless one would do as well
            read += 1
            yield block

    options = {"d_sae": 8, "l0": 1.5, "kind": "top_k", "steps": 4, "batch_size": 100}
    found = atomlab.fit(stream(), **options)
    assert read == 5  # 400 for the steps and 8,192 for what may be held out
    array = np.concatenate([block.numpy() for block in blocks[:5]])
    again = atomlab.fit(array, **options)
    assert isinstance(found, BaselineSAE)
    assert isinstance(found.activation, TopK)
    assert int(found.activation.k) == 2  # 1.5, rounded
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize(
    ("vectors", "change", "words"),
    [
        (torch.zeros(5), {}, r"of shape \(samples, d_in\)"),
        ([torch.ones(2, 3), torch.ones(2, 4)], {}, "all blocks of one width"),
        (torch.full((4, 3), torch.nan), {}, "NaN or infinite entries"),
        (torch.ones(9, 3), {}, "All 9 vectors are equal"),
        (torch.ones(2, 3), {}, "three vectors or more, got 2"),
        (torch.randn(9, 3), {"l0": 8.0}, "between 0 and d_sae, got d_sae=8, l0=8.0"),
        (torch.randn(9, 3), {"steps": 0}, "steps=0"),
        (torch.randn(9, 3), {"steps": 1.5}, "steps=1.5"),
        (torch.randn(9, 3), {"batch_size": "64"}, "batch_size=64"),
        (torch.randn(9, 3), {"seed": None}, "seed=None"),
        (torch.randn(9, 3), {"l0": "2"}, "l0=2"),
        (torch.randn(9, 3), {"d_sae": 8.0}, "d_sae=8.0"),
        ("a text", {}, r"an iterable of such blocks, got str\."),
        ({"x": torch.randn(9, 3)}, {}, r"an iterable of such blocks, got dict\."),
        (3, {}, r"an iterable of such blocks, got int\."),
        (["a", "b"], {}, "an iterable of such blocks, got str: "),
        ([[1.0, [2.0]]], {}, "an iterable of such blocks, got list: "),
        (torch.randn(9, 3, dtype=torch.complex64), {}, "real and dense, got torch.complex64"),
        (torch.eye(9).to_sparse(), {}, "real and dense, got torch.float32 in the layout torch.sparse_coo"),
        (torch.randn(9, 3), {"kind": "soft"}, "sae.activation=soft is unknown"),
        (
            torch.randn(9, 3),
            {"changes": {"training.nois": 0}},
            r"'training.nois' is no choice of a fit: expected .*noise,",
        ),
        (torch.randn(9, 3), {"changes": {"training.noise.of": 0}}, "'training.noise.of' is no choice of a fit"),
        (
            torch.randn(9, 3),
            {"changes": {"noise": 0}},
            "'noise' is no choice of a fit: expected a name such as sae.tied",
        ),
        (torch.randn(9, 3), {"changes": {"sae.expansion": 2.0}}, "'sae.expansion' is set by the argument d_sae"),
        (torch.randn(9, 3), {"changes": {"training.noise": -1.0}}, "training.noise=-1.0"),
        (torch.randn(9, 3), {"changes": {"sae.tied": "maybe"}}, "sae.tied=maybe: expected True or False"),
        (
            torch.randn(9, 3),
            {"changes": {"training.revival": 3}},
            "'training.revival' is a group of choices: expected one of after",
        ),
    ],
)
def test_what_cannot_be_fitted_is_said_in_a_sentence(vectors: Any, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        atomlab.fit(vectors, **({"d_sae": 8, "l0": 2.0, "steps": 2} | change))


@pytest.mark.parametrize("kind", ["threshold", "relu", "top_k", "batch_top_k", "gated"])
def test_a_notebook_and_the_command_line_train_alike(kind: str) -> None:
    conf = Path(atomlab.__file__).parent.parent / "conf"
    option = "tsae" if kind == "threshold" else kind
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train", [f"sae={option}"])
    architecture, recipe = defaults_of(kind, 4.0, 40.0)  # type: ignore[arg-type]
    assert instantiate(config.sae) == architecture
    assert instantiate(config.training) == recipe


def test_a_fit_with_changes_trains_what_the_command_line_would_train() -> None:
    conf = Path(atomlab.__file__).parent.parent / "conf"
    words = [
        "sae.tied=false",
        "training.noise=0.1",
        "training.initial_atoms.source=random",
        "training.incoherence.rows=3",
    ]
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train", words)
    changes = {"sae.tied": False, "training.noise": 0.1, "training.initial_atoms.source": "random"}
    found = with_changes(*defaults_of("threshold", 4.0, 40.0), changes | {"training.incoherence.rows": 3})
    assert found == (instantiate(config.sae), instantiate(config.training))


def test_a_change_reaches_the_training() -> None:
    options = {"d_sae": 24, "l0": 2.0, "steps": 3, "batch_size": 64}
    data, random = (
        atomlab.fit(drawn(300, 1), **options, changes={"training.initial_atoms.source": source})
        for source in ("data", "random")
    )
    unchanged = atomlab.fit(drawn(300, 1), **options)
    assert torch.equal(unchanged.W_dec, data.W_dec)
    assert float((unchanged.W_dec - random.W_dec).abs().max()) > 0.1


def test_only_what_there_is_can_be_imported() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        atomlab.fitt  # noqa: B018
