"""The core metrics of SAELens and SAEBench against atomlab's own, on the same SAE, model and tokens.

Both run their own functions over `to_saebench` of the same SAE. docs/metrics.md says which definitions differ, and why.
"""

from types import SimpleNamespace

import pytest
import torch
from sae_lens import evals
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer, HookedTransformerConfig

from atomlab import ThresholdSAE
from atomlab.interop import to_saebench
from atomlab.metrics.explained_variance import ExplainedVariance
from atomlab.sae import rescale_thresholds_
from atomlab.sae.ops import encode_csr
from atomlab.theory import AtomicInnerProduct, firing_counts, per_atom_coherence, support_sizes

SITE = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    torch.manual_seed(0)
    return HookedTransformer(
        HookedTransformerConfig(
            n_layers=2, d_model=16, n_ctx=32, d_head=8, n_heads=2, d_mlp=32, d_vocab=50, act_fn="gelu"
        )
    )


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 50, (8, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vectors(model: HookedTransformer, tokens: torch.Tensor) -> torch.Tensor:
    return model.run_with_cache(tokens, names_filter=[SITE])[1][SITE].flatten(0, 1).detach()


@pytest.fixture(scope="module")
def sae(vectors: torch.Tensor) -> ThresholdSAE:
    torch.manual_seed(1)
    sae = ThresholdSAE(16, 64)
    with torch.no_grad():
        sae.b_dec.copy_(vectors.mean(0))
        sae.b_enc.copy_(-(vectors.mean(0) @ sae.W_enc))
        sae.threshold.fill_(0.1)
        rescale_thresholds_(sae, vectors, 6.0)
        sae.threshold[:5] = 1e3  # dead
        sae.W_dec *= torch.linspace(0.5, 0.6, 64)[:, None]  # atoms need not have unit norm
    return sae


def store(tokens: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(get_batch_tokens=lambda n: tokens, reset_input_dataset=lambda: None)


def test_explained_variance_l0_and_dead_share_are_those_of_sae_lens(
    model: HookedTransformer, tokens: torch.Tensor, vectors: torch.Tensor, sae: ThresholdSAE
) -> None:
    wrapped = to_saebench(sae, {"model_name": "tiny", "hook_name": SITE})
    found, features = evals.get_sparsity_and_variance_metrics(
        wrapped, model, store(tokens), ActivationScaler(), n_batches=1, compute_l2_norms=True, compute_sparsity_metrics=True,
        compute_variance_metrics=True, compute_featurewise_density_statistics=True, eval_batch_size_prompts=8, model_kwargs={},
    )  # fmt: skip
    metric = ExplainedVariance(16, AtomicInnerProduct(torch.eye(16, dtype=torch.float64)))
    metric.update(vectors, sae(vectors).detach())
    assert float(metric.compute()) == pytest.approx(found["explained_variance"], abs=1e-5)
    codes = encode_csr(sae, vectors)
    assert float(support_sizes(codes).double().mean()) == pytest.approx(found["l0"], abs=1e-5)
    rates = firing_counts(codes).double() / len(vectors)
    torch.testing.assert_close(rates, torch.tensor(features["feature_density"]).double(), rtol=0, atol=1e-6)
    assert int((rates == 0).sum()) >= 5
    # The old number is a mean of ratios a token, so rare long vectors count no more than others.
    assert found["explained_variance_legacy"] != pytest.approx(found["explained_variance"], abs=1e-3)


def test_ce_recovered_is_one_minus_the_excess_over_zero_ablation(
    model: HookedTransformer, tokens: torch.Tensor, sae: ThresholdSAE
) -> None:
    """SAELens ablates with zeros; atomlab with the mean. With its own splice and zeros the score is the same."""
    wrapped = to_saebench(sae, {"model_name": "tiny", "hook_name": SITE})
    found = evals.get_downstream_reconstruction_metrics(
        wrapped, model, store(tokens), ActivationScaler(), compute_kl=True, compute_ce_loss=True, n_batches=1,
        eval_batch_size_prompts=8,
    )  # fmt: skip

    def loss(edit) -> float:
        return float(model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(SITE, lambda x, hook: edit(x))]))

    clean, spliced, zero = loss(lambda x: x), loss(lambda x: sae(x)), loss(torch.zeros_like)
    assert found["ce_loss_without_sae"] == pytest.approx(clean, abs=1e-5)
    assert found["ce_loss_with_sae"] == pytest.approx(spliced, abs=1e-5)
    assert found["ce_loss_score"] == pytest.approx((zero - spliced) / (zero - clean), abs=1e-4)


def test_the_largest_decoder_cosine_is_that_of_saebench(sae: ThresholdSAE) -> None:
    core = pytest.importorskip("sae_bench.evals.core.main")
    theirs = core.calculate_max_cosine_sim(to_saebench(sae, {"model_name": "t", "hook_name": SITE}).W_dec.T)
    ours = per_atom_coherence(sae.W_dec.detach())
    assert bool((ours >= theirs - 1e-5).all())  # theirs keeps the sign, so an opposite atom does not count
    unit = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    signed = (unit @ unit.T - 2 * torch.eye(len(unit))).amax(1)
    torch.testing.assert_close(theirs, signed, rtol=0, atol=1e-5)


def test_saebench_has_another_explained_variance_and_the_same_l0(
    model: HookedTransformer, tokens: torch.Tensor, vectors: torch.Tensor, sae: ThresholdSAE
) -> None:
    """SAEBench 0.6.0 subtracts (mean of x_i²)² from E‖x‖² where the square of the mean belongs; this reproduces its number."""
    core = pytest.importorskip("sae_bench.evals.core.main")
    wrapped = to_saebench(sae, {"model_name": "tiny", "hook_name": SITE})
    found, _ = core.get_sparsity_and_variance_metrics(
        wrapped, model, store(tokens), n_batches=1, compute_l2_norms=True, compute_sparsity_metrics=True,
        compute_variance_metrics=True, compute_featurewise_density_statistics=True, eval_batch_size_prompts=8, model_kwargs={},
    )  # fmt: skip
    codes = encode_csr(sae, vectors)
    assert float(support_sizes(codes).double().mean()) == pytest.approx(found["l0"], abs=1e-5)
    residual = (vectors - sae(vectors).detach()).square().sum(1).mean()
    theirs = vectors.square().sum(1).mean() - vectors.square().mean() ** 2
    assert found["explained_variance"] == pytest.approx(float(1 - residual / theirs), abs=1e-5)
