"""What is written for others: every format again as it was, with what SAELens, SAEBench and Neuronpedia look up."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from atomlab import LanguageModel, ThresholdSAE, load_sae, save_sae
from atomlab.interop import to_saebench
from atomlab.interop.export.metadata import hub_name
from atomlab.interop.export.model_card import model_card
from atomlab.interop.site_names import families_of, transformer_lens_name
from atomlab.sae import SAE, BaselineSAE, BatchTopK, Gated, Relu, TopK
from tests.interop.layouts import LAYOUTS, P, X, saelens

D_IN, D_SAE = 5, 7
KINDS: dict[str, Callable[[bool], SAE]] = {
    "threshold": lambda c: ThresholdSAE(D_IN, D_SAE, apply_b_dec_to_input=c),
    "tied": lambda c: ThresholdSAE(D_IN, D_SAE, apply_b_dec_to_input=c, tied=True),
    "relu": lambda c: BaselineSAE(D_IN, D_SAE, Relu(), apply_b_dec_to_input=c),
    "topk": lambda c: BaselineSAE(D_IN, D_SAE, TopK(3), apply_b_dec_to_input=c),
    "batchtopk": lambda c: BaselineSAE(D_IN, D_SAE, BatchTopK(3, 0.4), apply_b_dec_to_input=c),
    "gated": lambda c: BaselineSAE(D_IN, D_SAE, Gated(D_SAE), apply_b_dec_to_input=c),
}


def filled(kind: str, centred: bool) -> SAE:
    sae = KINDS[kind](centred)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sae.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
            if name == "threshold":
                value.abs_()
    return sae


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", ["saelens", "gemma_scope", "safetensors"])
def test_a_saved_sae_computes_what_it_computed(tmp_path: Path, format: str, kind: str, centred: bool) -> None:
    sae = filled(kind, centred)
    if (kind, format) in (("topk", "gemma_scope"), ("topk", "safetensors")):
        with pytest.raises(ValueError, match="holds thresholds, and this SAE keeps its k largest"):
            save_sae(sae, tmp_path, format=format)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())
        return
    found = load_sae(save_sae(sae, str(tmp_path / "there"), format=format))  # type: ignore[arg-type]
    torch.testing.assert_close(found.encode(X), sae.encode(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found(X), sae(X), rtol=1e-5, atol=1e-5)


def test_one_file_may_have_the_name_that_sparsify_gives_its_weights(tmp_path: Path) -> None:
    sae = filled("threshold", False)
    file = save_sae(sae, tmp_path / "sae.safetensors", format="safetensors")
    for place in (file, tmp_path):
        torch.testing.assert_close(load_sae(place).encode(X), sae.encode(X), rtol=1e-5, atol=1e-5)


LENS = {  # TransformerLens's names of the sites of the layouts
    "Gemma Scope": "blocks.12.hook_resid_post",
    "Gemma Scope, embedding": "blocks.0.hook_resid_pre",
    "Gemma Scope, MLP": "blocks.5.hook_mlp_out",
    "Gemma Scope, instruction-tuned, attention": "blocks.9.attn.hook_z",
    "Gemma Scope 2": "blocks.7.hook_resid_post",
    "Llama Scope": "blocks.2.hook_resid_post",
    "Llamascopium": "blocks.2.hook_resid_post",
    "sparsify": "blocks.10.hook_resid_post",
    "dictionary_learning AutoEncoder": "blocks.4.hook_resid_post",
    "Goodfire": "blocks.19.hook_resid_post",
    "Qwen Scope": "blocks.0.hook_resid_post",
    "SAELens jumprelu": "blocks.3.hook_resid_post",
    "circuit-tracer ReLU": "blocks.3.hook_mlp_out",
}


@pytest.mark.parametrize("name", LENS)
def test_saebench_takes_what_others_have_released(tmp_path: Path, name: str) -> None:
    """As it is read, and after it was saved again: both look the site up by TransformerLens's name."""
    sae = load_sae(LAYOUTS[name].write(tmp_path / "there"))
    folder = save_sae(sae, tmp_path / "again")
    written = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert (written["hook_name"], written["model_name"]) == (LENS[name], LAYOUTS[name].model)
    if name.startswith("Gemma") or name in ("sparsify", "Goodfire"):
        assert written["model_class_name"] == "HookedTransformer"
        assert written["hf_hook_name"] == {"sparsify": "model.layers.10.output"}.get(name, LAYOUTS[name].site)
    for one in (sae, load_sae(folder)):
        wrapped = to_saebench(one)
        assert wrapped.cfg.hook_name == wrapped.cfg.metadata.hook_name == LENS[name]
        assert wrapped.cfg.hook_layer == int(LENS[name].split(".")[1])
        torch.testing.assert_close(wrapped(X), LAYOUTS[name].x_hat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "site", "lens"),
    [
        ("meta-llama/Llama-3.1-8B", "model.layers.4.output", "blocks.4.hook_resid_post"),
        ("meta-llama/Llama-3.1-8B", "model.layers.4.mlp", "blocks.4.hook_mlp_out"),
        ("Qwen/Qwen3-0.6B", "model.layers.4.self_attn.output", "blocks.4.hook_attn_out"),
        ("Qwen/Qwen3-0.6B", "model.layers.4.mlp.down_proj.input", "blocks.4.mlp.hook_post"),
        ("gpt2", "transformer.h.4.input", "blocks.4.hook_resid_pre"),
        ("openai-community/gpt2-medium", "h.4.mlp", "blocks.4.hook_mlp_out"),
        ("google/gemma-2-2b", "model.layers.4.post_attention_layernorm.output", "blocks.4.hook_attn_out"),
        ("google/gemma-3-4b-pt", "model.language_model.layers.4.output", "blocks.4.hook_resid_post"),
        (
            "google/gemma-2-2b",
            "model.layers.4.mlp.output",
            None,
        ),  # before the norm that TransformerLens's name is behind
        ("meta-llama/Llama-3.1-8B", "model.layers.4.post_attention_layernorm.output", None),  # is the MLP's input there
        ("meta-llama/Llama-3.1-8B", "model.layers.4.mlp.input", None),
        ("someone/new", "model.layers.4.output", "blocks.4.hook_resid_post"),
        ("someone/new", "model.layers.4.mlp.output", None),  # may have a norm behind it
        (None, "layers.4.output", "blocks.4.hook_resid_post"),
        (None, "model.embed_tokens.output", None),
    ],
)
def test_a_path_of_a_module_has_transformer_lens_s_name_where_it_means_the_same(
    model: str | None, site: str, lens: str | None
) -> None:
    assert transformer_lens_name(site, families_of(model)) == lens
    if model is not None and lens is not None:
        assert to_saebench(ThresholdSAE(5, 7), {"model_name": model, "hook_name": site}).cfg.hook_name == lens


def test_the_embedded_model_is_named_after_the_hub_s(tmp_path: Path) -> None:
    """By the name of the folder that it is converted into; of another folder no path goes out."""
    for folder, name in (("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("mine", "mine")):
        (tmp_path / folder).mkdir()
        assert hub_name(LanguageModel(str(tmp_path / folder), device="cpu")) == name


@pytest.mark.parametrize("name", ["sparsify", "Gemma Scope 2", "SAELens jumprelu"])
def test_where_a_foreign_sae_comes_from_goes_with_it(tmp_path: Path, name: str) -> None:
    sae = load_sae(LAYOUTS[name].write(tmp_path / "there"))
    again = load_sae(save_sae(sae, tmp_path / "again")).origin
    assert sae.origin is not None
    assert again is not None
    assert again.model == sae.origin.model
    assert again.site == LENS[name]
    assert again.details["training_architecture"] == sae.origin.architecture


def test_firing_rates_are_written_as_logarithms_and_never_left_from_another_sae(tmp_path: Path) -> None:
    sae, rates = filled("threshold", False), torch.tensor([0.0, 0.5, 1e-3, 1.0, 0.25, 0.0, 0.1])
    save_sae(sae, tmp_path, firing_rates=rates)
    written = load_file(tmp_path / "sparsity.safetensors")
    torch.testing.assert_close(written["sparsity"], (rates + 1e-10).log10())
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert (metadata["l0"], metadata["num_dead_features"]) == (pytest.approx(1.851), 2)
    save_sae(sae, tmp_path)
    assert not (tmp_path / "sparsity.safetensors").exists()
    with pytest.raises(ValueError, match=r"of shape \(3,\): expected one for each of 7 atoms"):
        save_sae(sae, tmp_path, firing_rates=torch.ones(3))


def test_firing_rates_that_are_given_are_newer_than_what_the_files_of_others_state(tmp_path: Path) -> None:
    stated = {"sae_lens_version": "6.0.0", "model_name": "gpt2", "l0": 99.0, "num_dead_features": 5}
    theirs = load_sae(saelens(tmp_path / "theirs", "jumprelu", P, metadata=stated))
    rates = torch.tensor([0.0, 0.5, 0.25, 1, 1, 1, 1])
    for given, l0, dead in ((None, 4.75, 1), ({"l0": 7.0}, 7.0, 1)):
        save_sae(theirs, tmp_path / "ours", given, firing_rates=rates)
        metadata = json.loads((tmp_path / "ours" / "cfg.json").read_text())["metadata"]
        assert (metadata["l0"], metadata["num_dead_features"]) == (l0, dead)
    save_sae(theirs, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "cfg.json").read_text())["metadata"]["l0"] == 99


def test_heads_are_put_side_by_side_by_sae_lens(tmp_path: Path) -> None:
    for name, reshaped in (("blocks.1.attn.hook_z", "hook_z"), ("blocks.1.hook_resid_post", "none")):
        save_sae(filled("threshold", False), tmp_path, {"hook_name": name})
        assert json.loads((tmp_path / "cfg.json").read_text())["reshape_activations"] == reshaped
        load_sae(tmp_path)


def test_a_page_holds_table_configuration_and_data_and_no_markup_of_theirs() -> None:
    identity = {"sae": {"expansion": 4}, "steps": 40, "corpus": {"name": "text"}, "model": {"hub": "gpt2"}}
    metadata = {"model_name": "me/<b>model|", "atomlab_identity": identity, "dataset_path": "me/data", "l0": 12.34567}
    page = model_card(
        "me/sae", "a", {"architecture": "jumprelu", "d_in": 5, "metadata": metadata}, "| units |\n|---|\n| atoms |"
    )
    front = yaml.safe_load(re.fullmatch(r"---\n(.*?)---\n.*", page, re.DOTALL)[1])  # type: ignore[index]
    assert (front["base_model"], front["datasets"], front["library_name"]) == ("me/<b>model|", ["me/data"], "saelens")
    assert "| Language model | me/&lt;b&gt;model&#124; |" in page
    assert "| Mean number of active atoms (L0) | 12.35 |" in page
    assert "# What was measured\n\n| units |\n|---|\n| atoms |" in page
    assert "sae:\n  expansion: 4\nsteps: 40" in page
    assert "model:\n  hub: gpt2\ncorpus:\n  name: text" in page
    assert "A threshold-activated sparse autoencoder, trained with atomlab and saved in the format of SAELens." in page
    bare = model_card("me/sae", "", {"architecture": "topk"})
    assert "A TopK sparse autoencoder, trained with atomlab" in bare
    of_others = model_card("me/sae", "", {"architecture": "gated", "metadata": {"source_format": "SAELens"}})
    assert "A gated sparse autoencoder, read from files of SAELens and saved by atomlab in the format" in of_others
    assert "What was measured" not in bare
    assert "# Data" not in bare


def test_saebench_gets_the_same_function_with_unit_atoms() -> None:
    for kind in KINDS:
        sae = filled(kind, True)
        wrapped = to_saebench(sae, {"model_name": "gpt2", "hook_name": "blocks.3.hook_resid_post", "context_size": 64})
        torch.testing.assert_close(wrapped(X), sae(X), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(wrapped.encode(X) > 0, sae.encode(X) > 0)
        if kind != "topk" and kind != "batchtopk":  # these compare latents, so that one factor moves
            torch.testing.assert_close(wrapped.W_dec.norm(dim=1), torch.ones(D_SAE))
        assert (wrapped.cfg.hook_layer, wrapped.cfg.metadata.context_size, wrapped.cfg.metadata.neuronpedia_id) == (
            3,
            64,
            None,
        )
        assert (wrapped.device, wrapped.dtype) == (torch.device("cpu"), torch.float32)
        assert "metadata" not in wrapped.cfg.to_dict()
        json.dumps(wrapped.cfg.to_dict())
    with pytest.raises(ValueError, match="this SAE has model_name=None and hook_name=''"):
        to_saebench(filled("threshold", False))


def test_saebench_may_hand_over_heads_apart() -> None:
    sae = ThresholdSAE(6, 9)
    wrapped = to_saebench(sae, {"model_name": "gpt2", "hook_name": "blocks.3.attn.hook_z"})
    x = torch.randn(2, 4, 3, 2)
    wrapped.turn_on_forward_pass_hook_z_reshaping()
    torch.testing.assert_close(wrapped(x), sae(x.flatten(-2)).unflatten(-1, (3, 2)))
    wrapped.turn_off_forward_pass_hook_z_reshaping()
    torch.testing.assert_close(wrapped(x.flatten(-2)), sae(x.flatten(-2)))
