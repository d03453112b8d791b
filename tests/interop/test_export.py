"""What is written for others: every format again as it was, with what SAELens, SAEBench and Neuronpedia look up."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.interop import to_saebench
from atomlab.interop.export.model_card import model_card
from atomlab.sae import SAE, BaselineSAE, BatchTopK, Gated, Relu, TopK
from tests.interop.layouts import LAYOUTS, X

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


@pytest.mark.parametrize("name", ["sparsify", "Gemma Scope 2", "SAELens jumprelu"])
def test_where_a_foreign_sae_comes_from_goes_with_it(tmp_path: Path, name: str) -> None:
    sae = load_sae(LAYOUTS[name].write(tmp_path / "there"))
    again = load_sae(save_sae(sae, tmp_path / "again")).origin
    assert sae.origin is not None
    assert again is not None
    assert again.model == sae.origin.model
    assert f"{again.site}.output".startswith(str(sae.origin.site))
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
    bare = model_card("me/sae", "", {"architecture": "jumprelu"})
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
