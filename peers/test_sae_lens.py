"""The real sae-lens reads what atomlab saves, and atomlab what sae-lens saves: the same codes and reconstructions to 1e-5."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.registry import get_sae_class, get_sae_training_class
from torch import Tensor

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.interop.formats.saelens import SPARSITY
from atomlab.metrics.explained_variance import ExplainedVariance
from atomlab.sae import BaselineSAE, BatchTopK, Gated, Relu, TopK
from atomlab.theory import AtomicInnerProduct

D_IN, D_SAE = 12, 40
X = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0)) + 0.5


def filled(sae: torch.nn.Module) -> torch.nn.Module:
    """Random parameters, of which all matter; thresholds are positive."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in sae.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.5 if value.ndim == 2 else 0.3))
            if name == "threshold":
                value.abs_()
    return sae


def same(ours: torch.nn.Module, theirs: SAE) -> None:
    codes, theirs_codes = ours.encode(X), theirs.encode(X)
    torch.testing.assert_close(codes, theirs_codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(theirs_codes), theirs.decode(codes), rtol=1e-5, atol=1e-5)
    assert explained(ours(X)) == pytest.approx(theirs_explained(theirs(X)), abs=1e-5)


def explained(x_hat: Tensor) -> float:
    metric = ExplainedVariance(D_IN, AtomicInnerProduct(torch.eye(D_IN, dtype=torch.float64)))
    metric.update(X, x_hat.detach())
    return float(metric.compute())


def theirs_explained(x_hat: Tensor) -> float:
    found = ExplainedVarianceCalculator()
    found.add_batch(x_hat.detach(), X)
    return found.compute()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "topk"])
def test_what_sae_lens_saves_atomlab_reads(tmp_path: Path, kind: str, centred: bool) -> None:
    sae_class, config_class = get_sae_class(kind)
    further = {"k": 6} if kind == "topk" else {}
    theirs = filled(sae_class(config_class(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=centred, **further)))
    theirs.save_model(tmp_path)
    same(load_sae(tmp_path), theirs)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk", "topk"])
def test_what_sae_lens_saves_of_a_training_atomlab_reads(tmp_path: Path, kind: str, scaled: bool) -> None:
    """The checkpoint itself, against the SAE that sae-lens makes of it at the end."""
    sae_class, config_class = get_sae_training_class(kind)
    further = {"matryoshka_widths": [10, D_SAE]} if kind.startswith("matryoshka") else {}
    config = config_class(d_in=D_IN, d_sae=D_SAE, k=6, rescale_acts_by_decoder_norm=scaled, **further)
    training: TrainingSAE = filled(sae_class(config))
    if hasattr(training, "topk_threshold"):
        training.topk_threshold.fill_(0.7)
    training.save_model(tmp_path / "checkpoint")
    training.save_inference_model(tmp_path / "finished")
    finished = SAE.load_from_disk(tmp_path / "finished")
    same(load_sae(tmp_path / "finished"), finished)
    same(load_sae(tmp_path / "checkpoint"), finished)


BASELINES = {
    "relu": Relu,
    "topk": lambda: TopK(6),
    "batchtopk": lambda: BatchTopK(6, 0.7),
    "gated": lambda: Gated(D_SAE),
}


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["threshold", *BASELINES])
def test_what_atomlab_saves_sae_lens_reads(tmp_path: Path, kind: str, centred: bool) -> None:
    if kind == "threshold":
        ours = filled(ThresholdSAE(D_IN, D_SAE, apply_b_dec_to_input=centred))
    else:
        ours = filled(BaselineSAE(D_IN, D_SAE, BASELINES[kind](), apply_b_dec_to_input=centred))
    said = {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post", "prepend_bos": True, "context_size": 64}
    save_sae(ours, tmp_path, said, firing_rates=torch.linspace(0, 1, D_SAE))
    theirs = SAE.load_from_disk(tmp_path)
    same(ours, theirs)
    same(load_sae(tmp_path), theirs)
    metadata = theirs.cfg.metadata
    assert {name: metadata[name] for name in said} == said
    from safetensors.torch import load_file

    rates = 10 ** load_file(tmp_path / SPARSITY)["sparsity"]
    torch.testing.assert_close(rates, torch.linspace(0, 1, D_SAE), rtol=1e-5, atol=1e-6)
