"""SAEs in the layouts that others publish, written here by the shapes of their files, with what each computes.

All have d_in = 5 and d_sae = 7, so that a matrix and its transpose have different shapes.
"""

# ruff: noqa: E501 (a table, whose lines may run over)
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 5, 7, 3


def numbers(seed: int = 0) -> dict[str, Tensor]:
    """Random parameters in this package's orientation, in which every one of them matters."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    values = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return values | {"threshold": torch.rand(D_SAE, generator=generator)}


P = numbers()
X = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(1))


def pre(x: Tensor, centred: bool = False) -> Tensor:
    return (x - centred * P["b_dec"]) @ P["W_enc"] + P["b_enc"]


def jump(z: Tensor, threshold: Tensor) -> Tensor:
    return z.relu() * (z > threshold)


def top_k(z: Tensor, scores: Tensor | None = None) -> Tensor:
    """Keeps z where its score is one of the K largest, by sorting."""
    ranked = z if scores is None else scores
    least = ranked.sort(dim=1, descending=True).values[:, K - 1 : K]
    return torch.where(ranked >= least, z.relu(), 0.0)


def out(codes: Tensor) -> Tensor:
    return codes @ P["W_dec"] + P["b_dec"]


@dataclass(frozen=True)
class Layout:
    """One layout: what to load after `write`, the codes and reconstructions of X, and what the files say."""

    write: Callable[[Path], Path]
    codes: Tensor
    x_hat: Tensor
    format: str
    model: str | None = None
    site: str | None = None


def of(write: Callable[[Path], Path], codes: Tensor, format: str, *said: str) -> Layout:
    return Layout(write, codes, out(codes), format, *said)


def t(name: str) -> Tensor:
    return P[name].T.contiguous()


def into(folder: Path, **files: object) -> Path:
    """Writes files by their names, in which __ stands for a dot and ___ for a slash."""
    for name, content in files.items():
        file = folder / name.replace("___", "/").replace("__", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".json":
            file.write_text(json.dumps(content))
        elif file.suffix == ".yaml":
            file.write_text(yaml.safe_dump(content))
        elif file.suffix == ".npz":
            np.savez(file, **{key: value.numpy() for key, value in content.items()})  # type: ignore[union-attr]
        elif file.suffix in (".pt", ".pth"):
            torch.save(content, file)
        else:
            save_file(content, file)  # type: ignore[arg-type]
    return folder


def saelens(folder: Path, architecture: str, weights: dict[str, Tensor], **config: object) -> Path:
    stated = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32"} | config
    return into(folder, cfg__json=stated, sae_weights__safetensors=weights)


FOUR = {name: P[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
NEW = {"metadata": {"sae_lens_version": "6.0.0", "model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post"}}
GATE = {
    "b_gate": torch.linspace(-1, 1, D_SAE),
    "b_mag": torch.linspace(1, -1, D_SAE),
    "r_mag": torch.linspace(-1, 0.5, D_SAE),
}
NORMS = P["W_dec"].norm(dim=1)
LINEAR = {
    "encoder.weight": t("W_enc"), "encoder.bias": P["b_enc"], "decoder.weight": t("W_dec"), "decoder.bias": P["b_dec"],
}  # fmt: skip


def gated(centred: bool) -> Tensor:
    u = (X - centred * P["b_dec"]) @ P["W_enc"]
    return (u + GATE["b_gate"] > 0) * (GATE["r_mag"].exp() * u + GATE["b_mag"]).relu()


def learning(folder: Path, kind: str, weights: dict[str, object], **backup: object) -> Path:
    trainer = {
        "trainer_class": "SomeTrainer", "dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 4,
        "lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_4",
    }  # fmt: skip
    config = {"trainer": trainer, "buffer": {"io": "out", "ctx_len": 128}}
    content = {"ae": weights, "step": 5, "optimizer": {}, **backup} if backup else weights
    return into(folder, config__json=config, ae__pt=content)


_BIASED = {key: value for key, value in LINEAR.items() if key != "decoder.bias"}
_TOP = _BIASED | {"b_dec": P["b_dec"], "k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.6)}
_LEARNING = ("dictionary_learning", "EleutherAI/pythia-70m", "blocks.4.hook_resid_post")
_SAELENS = ("SAELens", "gpt2", "blocks.3.hook_resid_post")
_SCOPE = {
    "d_model": D_IN,
    "d_sae": D_SAE,
    "hook_point_in": "blocks.2.hook_resid_post",
    "hook_point_out": "blocks.2.hook_resid_post",
}
NORM = 4.0
S = D_IN**0.5 / NORM  # the scale of Llama Scope's and Llamascopium's inputs
_LLAMA = {"W_E": P["W_enc"], "b_E": P["b_enc"], "W_D": P["W_dec"], "b_D": P["b_dec"]}
_LOG = {"activation_function.log_jumprelu_threshold": P["threshold"].log()}
_DATASET_NORM = {"dataset_average_activation_norm.blocks.2.hook_resid_post": torch.tensor(NORM)}
_SPARSIFY = {"encoder.weight": t("W_enc"), "encoder.bias": P["b_enc"], "W_dec": P["W_dec"], "b_dec": P["b_dec"]}
_SPARSIFY_CONFIG = {
    "activation": "topk",
    "k": K,
    "num_latents": D_SAE,
    "d_in": D_IN,
    "expansion_factor": 32,
    "transcode": False,
}
_TRACER = {"W_enc": t("W_enc"), "W_dec": P["W_dec"], "b_enc": P["b_enc"], "b_dec": P["b_dec"]}
_ONE_SITE = {"feature_input_hook": "hook_mlp_out", "feature_output_hook": "hook_mlp_out"}


def _scope_2(folder: Path) -> Path:
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.7.output"}
    weights = {name.replace("W_", "w_"): value for name, value in P.items()}
    return into(folder / "resid_post" / "layer_7_width_16k", config__json=config, params__safetensors=weights)


def _sparsify(folder: Path) -> Path:
    into(folder, config__json={"model": "HuggingFaceTB/SmolLM2-135M", "ctx_len": 2048, "dataset": "text"})
    return into(folder / "layers.10", cfg__json=_SPARSIFY_CONFIG, sae__safetensors=_SPARSIFY)


def _whitened(folder: Path) -> Path:
    saelens(folder, "jumprelu", P, normalize_activations="covariance_whitening", apply_b_dec_to_input=False, **NEW)
    matrix = torch.linalg.inv(INVERSE)
    white = {"mean": MEAN, "matrix": matrix.float().contiguous(), "inverse_matrix": INVERSE.float()}
    return into(folder, activation_whitening__safetensors=white)


MEAN = torch.linspace(-1, 1, D_IN)
INVERSE = torch.eye(D_IN, dtype=torch.float64) * 2 + 0.5
_Z_SCALED, _Z_WHITE = pre(X * S), pre(((X - MEAN).double() @ torch.linalg.inv(INVERSE)).float())
_BATCH = {"topk_threshold": torch.tensor(0.6, dtype=torch.float64)}

LAYOUTS: dict[str, Layout] = {
    "SAELens standard": of(lambda p: saelens(p, "standard", FOUR, **NEW), pre(X, True).relu(), *_SAELENS),
    "SAELens jumprelu": of(
        lambda p: saelens(p, "jumprelu", P, apply_b_dec_to_input=False, **NEW), jump(pre(X), P["threshold"]), *_SAELENS
    ),
    "SAELens jumprelu before 6.48": of(
        lambda p: saelens(p, "jumprelu", FOUR | {"log_threshold": P["threshold"].log()}, **NEW),
        jump(pre(X, True), P["threshold"]), *_SAELENS,
    ),
    "SAELens gated": of(
        lambda p: saelens(p, "gated", {k: v for k, v in FOUR.items() if k != "b_enc"} | GATE, **NEW), gated(True), *_SAELENS
    ),
    "SAELens topk": of(lambda p: saelens(p, "topk", FOUR, k=K, **NEW), top_k(pre(X, True)), *_SAELENS),
    "SAELens topk by decoder norm": Layout(
        lambda p: saelens(p, "topk", FOUR, k=K, rescale_acts_by_decoder_norm=True, **NEW),
        top_k(pre(X, True) * NORMS), out(top_k(pre(X, True) * NORMS) / NORMS), *_SAELENS,
    ),
    "SAELens topk before 6": of(
        lambda p: saelens(
            p, "standard", FOUR, activation_fn_str="topk", activation_fn_kwargs={"k": K}, model_name="gpt2",
            hook_point="blocks.3.hook_resid_post",
        ),
        top_k(pre(X, True)), *_SAELENS,
    ),
    "SAELens batchtopk checkpoint": of(
        lambda p: saelens(p, "batchtopk", FOUR | _BATCH, k=4.5, **NEW), jump(pre(X, True), torch.tensor(0.6)), *_SAELENS
    ),
    "SAELens scaled checkpoint": Layout(
        lambda p: into(
            saelens(p, "jumprelu", P, normalize_activations="expected_average_only_in", apply_b_dec_to_input=False, **NEW),
            activation_scaler__json={"scaling_factor": S},
        ),
        jump(_Z_SCALED, P["threshold"]), out(jump(_Z_SCALED, P["threshold"])) / S, *_SAELENS,
    ),
    "SAELens whitened checkpoint": Layout(
        _whitened, jump(_Z_WHITE, P["threshold"]),
        (out(jump(_Z_WHITE, P["threshold"])).double() @ INVERSE).float() + MEAN, *_SAELENS,
    ),
    "Gemma Scope": of(
        lambda p: into(p / "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", params__npz=P),
        jump(pre(X), P["threshold"]), "Gemma Scope", "google/gemma-2-2b", "model.layers.12.output",
    ),
    "Gemma Scope, embedding": Layout(  # trained on x/√n, with x the residual stream that enters the first layer
        lambda p: into(p / "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", params__npz=P),
        jump(pre(X / D_IN**0.5), P["threshold"]),
        jump(pre(X / D_IN**0.5), P["threshold"]) @ P["W_dec"] * D_IN**0.5 + P["b_dec"],
        "Gemma Scope", "google/gemma-2-2b", "model.layers.0.input",
    ),
    "Gemma Scope, MLP": of(
        lambda p: into(p / "gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_60", params__npz=P),
        jump(pre(X), P["threshold"]), "Gemma Scope", "google/gemma-2-2b", "model.layers.5.post_feedforward_layernorm.output",
    ),
    "Gemma Scope, attention, under results": of(  # whose first letters are those of another site
        lambda p: into(p / "results/gemma-scope-9b-pt-att/layer_9/width_16k/average_l0_1", params__npz=P),
        jump(pre(X), P["threshold"]), "Gemma Scope", "google/gemma-2-9b", "model.layers.9.self_attn.o_proj.input",
    ),
    "Gemma Scope, without its repository": of(
        lambda p: into(p / "att/layer_4/embedding-study", params__npz=P),
        jump(pre(X), P["threshold"]), "Gemma Scope", None, "model.layers.4.self_attn.o_proj.input",  # type: ignore[arg-type]
    ),
    "Gemma Scope, of no known site": of(
        lambda p: into(p / "results/layer_4/mlp-study", params__npz=P), jump(pre(X), P["threshold"]), "Gemma Scope"
    ),
    "Gemma Scope, instruction-tuned, attention": of(
        lambda p: into(p / "gemma-scope-9b-it-att/layer_9/width_16k/average_l0_1", params__npz=P),
        jump(pre(X), P["threshold"]), "Gemma Scope", "google/gemma-2-9b-it", "model.layers.9.self_attn.o_proj.input",
    ),
    "Gemma Scope 2": of(
        _scope_2, jump(pre(X), P["threshold"]), "Gemma Scope 2", "google/gemma-3-1b-pt", "model.layers.7.output"
    ),
    "Llama Scope": Layout(
        lambda p: into(
            p, hyperparams__json=_SCOPE | {"jump_relu_threshold": 0.7, "dataset_average_activation_norm": {"in": NORM, "out": NORM}},
            checkpoints___final__safetensors=LINEAR,
        ),
        jump(_Z_SCALED, torch.tensor(0.7 * S)), out(jump(_Z_SCALED, torch.tensor(0.7 * S))) / S,
        "Llama Scope", "meta-llama/Llama-3.1-8B", "blocks.2.hook_resid_post",
    ),
    "Llamascopium": Layout(
        lambda p: into(
            p, config__json=_SCOPE | {
                "sae_type": "sae", "act_fn": "jumprelu", "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True,
            },
            lm_config__json={"model_name": "Qwen/Qwen3-0.6B"}, sae_weights__safetensors=_LLAMA | _LOG | _DATASET_NORM,
        ),
        _Z_SCALED * (P["threshold"] < _Z_SCALED * NORMS), out(_Z_SCALED * (P["threshold"] < _Z_SCALED * NORMS)) / S,
        "Llamascopium", "Qwen/Qwen3-0.6B", "blocks.2.hook_resid_post",
    ),
    "Llamascopium TopK": Layout(
        lambda p: into(
            p, config__json=_SCOPE | {"act_fn": "topk", "top_k": K, "norm_activation": "inference", "sparsity_include_decoder_norm": True},
            sae_weights__safetensors=_LLAMA,
        ),
        top_k(pre(X) * NORMS), out(top_k(pre(X) * NORMS) / NORMS), "Llamascopium", None, "blocks.2.hook_resid_post",
    ),
    "Llama Scope R1": of(
        lambda p: into(
            p, config__json=_SCOPE | {"act_fn": "jumprelu", "norm_activation": "inference", "sparsity_include_decoder_norm": False},
            sae_weights__safetensors=LINEAR | {"log_jumprelu_threshold": P["threshold"].log()},
        ),
        jump(pre(X), P["threshold"]), "Llamascopium", None, "blocks.2.hook_resid_post",  # type: ignore[arg-type]
    ),
    "sparsify": of(_sparsify, top_k(pre(X, True)), "sparsify", "HuggingFaceTB/SmolLM2-135M", "layers.10.output"),
    "dictionary_learning AutoEncoder": of(
        lambda p: learning(p, "AutoEncoder", _BIASED | {"bias": P["b_dec"]}), pre(X, True).relu(), *_LEARNING
    ),
    "dictionary_learning AutoEncoderNew": of(lambda p: learning(p, "AutoEncoderNew", dict(LINEAR)), pre(X).relu(), *_LEARNING),
    "dictionary_learning gated": of(
        lambda p: learning(
            p, "GatedAutoEncoder",
            {
                "encoder.weight": t("W_enc"), "decoder.weight": t("W_dec"), "decoder_bias": P["b_dec"], "r_mag": GATE["r_mag"],
                "gate_bias": GATE["b_gate"], "mag_bias": GATE["b_mag"],
            },
        ),
        gated(True), *_LEARNING,
    ),
    "dictionary_learning JumpRelu": of(
        lambda p: learning(p, "JumpReluAutoEncoder", dict(P)), jump(pre(X), P["threshold"]), *_LEARNING
    ),
    "dictionary_learning TopK": of(lambda p: learning(p, "AutoEncoderTopK", _TOP), top_k(pre(X, True)), *_LEARNING),
    "dictionary_learning BatchTopK": of(
        lambda p: learning(p, "BatchTopKSAE", _TOP), jump(pre(X, True), torch.tensor(0.6)), *_LEARNING
    ),
    "dictionary_learning Matryoshka": of(
        lambda p: learning(
            p, "MatryoshkaBatchTopKSAE",
            FOUR | {"k": torch.tensor(K), "threshold": torch.tensor(0.6), "group_sizes": torch.tensor([3, 4])},
        ),
        jump(pre(X, True), torch.tensor(0.6)), *_LEARNING,
    ),
    "dictionary_learning backup": Layout(  # trained on x/2: biases and threshold times 2
        lambda p: learning(p, "BatchTopKSAE", _TOP, norm_factor=2.0),
        2 * jump(pre(X / 2, True), torch.tensor(0.6)), 2 * out(jump(pre(X / 2, True), torch.tensor(0.6))), *_LEARNING,
    ),
    "OpenAI": of(
        lambda p: into(
            p, ae__pth={
                "pre_bias": P["b_dec"], "encoder.weight": t("W_enc"), "latent_bias": P["b_enc"], "decoder.weight": t("W_dec"),
                "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long), "activation": "ReLU",
            },
        ) / "ae.pth",
        pre(X, True).relu(), "OpenAI",
    ),
    "Goodfire": of(
        lambda p: into(
            p, **{"Llama-3__1-8B-Instruct-SAE-l19__pth": {
                "encoder_linear.weight": t("W_enc"), "encoder_linear.bias": P["b_enc"],
                "decoder_linear.weight": t("W_dec"), "decoder_linear.bias": P["b_dec"],
            }},
        ),
        pre(X).relu(), "Goodfire", "meta-llama/Llama-3.1-8B-Instruct", "model.layers.19.output",
    ),
    "Qwen Scope": of(
        lambda p: into(
            p / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}",
            layer0__sae__pt={"W_enc": t("W_enc"), "W_dec": t("W_dec"), "b_enc": P["b_enc"], "b_dec": P["b_dec"]},
        ) / "layer0.sae.pt",
        top_k(pre(X)), "Qwen Scope", "Qwen/Qwen3-1.7B-Base", "model.layers.0.output",
    ),
    "circuit-tracer ReLU": of(
        lambda p: into(
            p, config__yaml=_ONE_SITE | {"model_name": "google/gemma-2-2b", "activation": "relu"}, layer_3__safetensors=_TRACER
        ) / "layer_3.safetensors",
        pre(X).relu(), "circuit-tracer", "google/gemma-2-2b", "blocks.3.hook_mlp_out",
    ),
    "circuit-tracer JumpReLU": of(
        lambda p: into(
            p, config__yaml=_ONE_SITE, layer_3__safetensors=_TRACER | {"activation_function.threshold": P["threshold"]}
        ) / "layer_3.safetensors",
        jump(pre(X), P["threshold"]), "circuit-tracer", None, "blocks.3.hook_mlp_out",  # type: ignore[arg-type]
    ),
    "circuit-tracer TopK": of(
        lambda p: into(p, config__yaml=_ONE_SITE, layer_3__safetensors=_TRACER | {"k": torch.tensor(K)}) / "layer_3.safetensors",
        top_k(pre(X)), "circuit-tracer", None, "blocks.3.hook_mlp_out",  # type: ignore[arg-type]
    ),
}  # fmt: skip
