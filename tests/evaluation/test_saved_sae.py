"""A run's own SAE carries what SAELens, SAEBench and Neuronpedia look up."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from atomlab import ThresholdSAE
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation import StudyInputs, save_trained
from atomlab.interop.export.metadata import metadata_of_data
from atomlab.sae.ops import encode_csr


def test_a_run_says_what_others_look_up(inputs: StudyInputs, tmp_path: Path) -> None:
    data: ActivationDataModule = inputs.data
    said = metadata_of_data(data)
    assert (said["hook_name"], said["hf_hook_name"]) == ("blocks.1.hook_resid_post", "model.layers.1.output")
    assert (said["model_class_name"], said["context_size"]) == ("HookedTransformer", data.harvests.rules.context)
    assert said["dataset_path"] is None
    elsewhere = metadata_of_data(data.at("model.layers.1.mlp.act_fn.output", 1))
    assert elsewhere["hook_name"] == "model.layers.1.mlp.act_fn"
    assert elsewhere["model_class_name"] == "AutoModelForCausalLM"
    sae = ThresholdSAE(data.d_in, 8)
    save_trained(sae, tmp_path, data, inputs.identity, 200)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert {key: config["metadata"][key] for key in said} == said
    x = data.sample("train", 200)
    rates = (encode_csr(sae, x).to_dense() > 0).double().mean(0)
    torch.testing.assert_close(
        load_file(tmp_path / "sparsity.safetensors")["sparsity"], (rates + 1e-10).log10().float()
    )
