"""The core metrics of SAELens and SAEBench against the row of atomlab's table, on the same SAE, model and tokens.

Each runs its own functions: theirs over `to_saebench` of the SAE, ours over the SAE. docs/metrics.md says which definitions
differ, and why.
"""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from sae_bench.evals.core import main as core
from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
from sae_lens import evals
from sae_lens.load_model import HookedProxyLM
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import GPT2Config, GPT2LMHeadModel

from atomlab import ThresholdSAE
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.tokens.sequences import Sequences
from atomlab.evaluation import measure
from atomlab.evaluation.rows.firing import firing_shares
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import euclidean_coherence
from atomlab.evaluation.rows.splicing import splice
from atomlab.interop import to_saebench
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import rescale_thresholds_
from atomlab.sae.ops import encode_csr
from atomlab.theory import AtomicInnerProduct, firing_counts
from atomlab.units import atoms

SITE, LAYER = "blocks.0.hook_resid_post", "transformer.h.0"
EVERYTHING = {
    "compute_l2_norms": True, "compute_sparsity_metrics": True, "compute_variance_metrics": True,
    "compute_featurewise_density_statistics": True, "n_batches": 1, "eval_batch_size_prompts": 8, "model_kwargs": {},
}  # fmt: skip


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


def sae_of(vectors: torch.Tensor) -> ThresholdSAE:
    """Five dead latents, two opposite atoms, and atoms without unit norm."""
    torch.manual_seed(1)
    sae = ThresholdSAE(16, 64)
    with torch.no_grad():
        sae.W_dec[7] = -sae.W_dec[6]
        sae.b_dec.copy_(vectors.mean(0))
        sae.b_enc.copy_(-(vectors.mean(0) @ sae.W_enc))
        sae.threshold.fill_(0.1)
        rescale_thresholds_(sae, vectors, 6.0)
        sae.threshold[:5] = 1e3
        sae.W_dec *= torch.linspace(0.5, 0.6, 64)[:, None]
    return sae


@pytest.fixture(scope="module")
def sae(vectors: torch.Tensor) -> ThresholdSAE:
    return sae_of(vectors)


@pytest.fixture(scope="module")
def row(sae: ThresholdSAE, vectors: torch.Tensor) -> dict:
    """The row of atomlab's table, of which both the training and the held-out vectors are these."""
    metric = AtomicInnerProduct(torch.eye(16, dtype=torch.float64))
    sizes = SampleSizes(measured=256, certified=16, supports=8, resampled=8)
    row, _ = measure(atoms(sae), vectors, HeldOut.independent(vectors), metric, sizes)
    return row | firing_shares(atoms(sae), [vectors])


def store(tokens: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(get_batch_tokens=lambda n: tokens, reset_input_dataset=lambda: None)


def wrapped(sae: ThresholdSAE) -> torch.nn.Module:
    """The SAE as SAEBench's own door lets it in."""
    return load_and_format_sae("tiny", to_saebench(sae, {"model_name": "tiny", "hook_name": SITE}), "cpu")[1]


def test_explained_variance_l0_and_densities_are_those_of_sae_lens(
    model: HookedTransformer, tokens: torch.Tensor, vectors: torch.Tensor, sae: ThresholdSAE, row: dict
) -> None:
    found, features = evals.get_sparsity_and_variance_metrics(
        wrapped(sae), model, store(tokens), ActivationScaler(), **EVERYTHING
    )
    assert row["r2"] == pytest.approx(found["explained_variance"], abs=1e-5)
    assert row["l0"] == pytest.approx(found["l0"], abs=1e-5)
    rates = firing_counts(encode_csr(sae, vectors)).double() / len(vectors)
    torch.testing.assert_close(rates, torch.tensor(features["feature_density"]).double(), rtol=0, atol=1e-6)
    # The old number is a mean of ratios a token, so rare long vectors count no more than others.
    assert found["explained_variance_legacy"] != pytest.approx(found["explained_variance"], abs=1e-3)


def theirs_of_sae_lens(released: torch.nn.Module, model: HookedProxyLM, tokens: torch.Tensor) -> dict:
    vars(released.cfg.metadata)["hook_name"] = LAYER
    return evals.get_downstream_reconstruction_metrics(
        released, model, store(tokens), ActivationScaler(), compute_kl=True, compute_ce_loss=True, n_batches=1,
        eval_batch_size_prompts=8,
    )  # fmt: skip


def theirs_of_saebench(released: torch.nn.Module, model: HookedProxyLM, tokens: torch.Tensor) -> dict:
    released.cfg.hook_name = LAYER
    return core.get_downstream_reconstruction_metrics(
        released, model, store(tokens), compute_kl=True, compute_ce_loss=True, n_batches=1, eval_batch_size_prompts=8
    )


@pytest.mark.parametrize("theirs_of", [theirs_of_sae_lens, theirs_of_saebench])
def test_losses_and_divergence_of_our_splice_are_those_of_others(theirs_of: Callable, tokens: torch.Tensor) -> None:
    """One Hugging Face model, run by SAELens' proxy and by our `splice`, each with its own hooks and losses.

    SAELens and SAEBench replace every position, so every position counts as harvested here.
    """
    torch.manual_seed(2)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    language_model = GPT2LMHeadModel(config).eval()
    proxy = HookedProxyLM(language_model, None, hook_names=[LAYER])
    sae = sae_of(proxy.run_with_cache(tokens, names_filter=[LAYER])[1][LAYER].flatten(0, 1).detach())
    theirs = theirs_of(wrapped(sae), proxy, tokens)
    count = tokens.numel()
    sequences = Sequences(
        tokens.flatten().int(), torch.arange(0, count + 1, 32), torch.ones(count, dtype=torch.bool),
        torch.arange(32).repeat(8).int(), torch.arange(8).repeat_interleave(32).int(),
    )  # fmt: skip
    rows = SimpleNamespace(
        numbers=torch.arange(count), store=SimpleNamespace(origins=SimpleNamespace(sequences=sequences))
    )
    ours = splice(
        language_model, HookPoint(LAYER, "output"), rows, torch.zeros(16), {"sae": sae, "zero": torch.zeros_like}, count
    )
    found, zero = ours.row("sae"), ours.row("zero")
    assert (ours.tokens, ours.scored) == (count, count - 8)
    assert found["loss_clean"] == pytest.approx(theirs["ce_loss_without_sae"], abs=1e-5)
    assert found["loss"] == pytest.approx(theirs["ce_loss_with_sae"], abs=1e-5)
    assert zero["loss"] == pytest.approx(theirs["ce_loss_with_ablation"], abs=1e-5)
    assert found["loss_recovered_zero"] == pytest.approx(theirs["ce_loss_score"], abs=1e-4)
    assert found["kl"] == pytest.approx(theirs["kl_div_with_sae"], abs=1e-5)
    assert abs(zero["loss"] - found["loss_clean"]) > 0.05  # the score is a quotient of this
    assert abs(found["loss"] - found["loss_clean"]) > 0.01


def test_l0_dead_share_and_decoder_cosines_are_those_of_saebench(
    model: HookedTransformer, tokens: torch.Tensor, sae: ThresholdSAE, row: dict
) -> None:
    found, features = core.get_sparsity_and_variance_metrics(wrapped(sae), model, store(tokens), **EVERYTHING)
    features |= core.get_featurewise_weight_based_metrics(wrapped(sae))
    summary = core.calculate_misc_metrics(features)
    assert row["l0"] == pytest.approx(found["l0"], abs=1e-5)
    assert row["dead"] == pytest.approx(1 - summary["frac_alive"], abs=1e-6)
    assert row["dead"] >= 5 / 64
    # Theirs keeps the sign of a cosine, so the two opposite atoms count here alone: their cosine is -1.
    signed = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    cosines = (signed @ signed.T).fill_diagonal_(-2)
    torch.testing.assert_close(torch.tensor(features["max_decoder_cosine_sim"]), cosines.amax(1), rtol=0, atol=1e-5)
    largest = cosines.fill_diagonal_(0).abs().amax(1)
    assert row["coherence_euclidean"] == pytest.approx(1, abs=1e-5)
    assert row["coherence_euclidean"] > max(features["max_decoder_cosine_sim"]) + 0.01
    assert row["coherence_euclidean_mean"] == pytest.approx(float(largest.mean()), abs=1e-5)
    assert row["coherence_euclidean_mean"] > summary["average_max_decoder_cosine_sim"] + 0.01


def test_the_mean_decoder_cosine_is_that_of_saebench_where_no_cosine_is_negative() -> None:
    torch.manual_seed(3)
    sae = ThresholdSAE(16, 64)
    with torch.no_grad():
        sae.W_dec.abs_()
    features = core.get_featurewise_weight_based_metrics(wrapped(sae)) | {"feature_density": [0.0] * 64}
    found = euclidean_coherence(sae.W_dec.detach())
    assert found["coherence_euclidean"] == pytest.approx(max(features["max_decoder_cosine_sim"]), abs=1e-5)
    theirs = core.calculate_misc_metrics(features)["average_max_decoder_cosine_sim"]
    assert found["coherence_euclidean_mean"] == pytest.approx(theirs, abs=1e-5)


def test_saebench_has_another_explained_variance(
    model: HookedTransformer, tokens: torch.Tensor, vectors: torch.Tensor, sae: ThresholdSAE, row: dict
) -> None:
    """SAEBench 0.6.0 subtracts (mean of x_i²)² from E‖x‖² where the square of the mean belongs; this reproduces its number."""
    found, _ = core.get_sparsity_and_variance_metrics(wrapped(sae), model, store(tokens), **EVERYTHING)
    residual = (vectors - sae(vectors).detach()).square().sum(1).mean()
    theirs = vectors.square().sum(1).mean() - vectors.square().mean() ** 2
    assert found["explained_variance"] == pytest.approx(float(1 - residual / theirs), abs=1e-5)
    assert found["explained_variance"] != pytest.approx(row["r2"], abs=1e-3)
