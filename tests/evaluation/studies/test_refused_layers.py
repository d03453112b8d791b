"""A study over layers refuses what it can know before its first training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.evaluation import PaperTable, StudyInputs


def test_a_layer_without_a_metric_is_refused_before_the_first_training(inputs: StudyInputs, tmp_path: Path) -> None:
    """Found in a user's first hour: a rank at the sixth layer ended the study after five layers had been trained."""
    model = AutoModelForCausalLM.from_pretrained(inputs.data.model.name)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[3:] = 0  # outputs of this layer's MLP span three dimensions of 16
    model.save_pretrained(tmp_path / "low")
    AutoTokenizer.from_pretrained(inputs.data.model.name).save_pretrained(tmp_path / "low")
    data = ActivationDataModule(
        LanguageModel(str(tmp_path / "low"), dtype="float32", device="cpu"),
        inputs.data.corpus,
        inputs.data.reference,
        hook_points=HookPoints(site="mlp_out", layer=0),
        tokens=TokenRules(context=32, fractions=(0.6, 0.1, 0.3)),
        outliers=Outliers(max_norm_ratio=None),
        harvest=HarvestOptions(cache_dir=str(tmp_path / "cache")),
        batches=TrainingBatches(size=64, steps=20),
    )
    strict = replace(inputs, data=data, retraining=replace(inputs.retraining, shrinkage=0.0), folder=tmp_path / "study")
    said = r"No metric S at layer 2 of mlp_out, and nothing was trained: .* rank 3 of 16 .* study\.layers=\[0, 1\]"
    with pytest.raises(ValueError, match=said):
        PaperTable()(strict)
    assert not (tmp_path / "study").exists()
