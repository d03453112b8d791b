"""The real dictionary_learning's classes. Its package imports nnsight, which the classes themselves do not need."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from atomlab import load_sae
from peers.part_of_package import import_part

D_IN, D_SAE = 12, 40


def classes(module: str) -> ModuleType:
    skipped = ("dictionary_learning", "dictionary_learning.trainers")
    return import_part("dictionary-learning", f"dictionary_learning.{module}", *skipped)


def made(name: str) -> Any:
    if name == "AutoEncoderTopK":
        return classes("trainers.top_k").AutoEncoderTopK(D_IN, D_SAE, 6)
    if name == "BatchTopKSAE":
        return classes("trainers.batch_top_k").BatchTopKSAE(D_IN, D_SAE, 6)
    if name == "MatryoshkaBatchTopKSAE":
        return classes("trainers.matryoshka_batch_top_k").MatryoshkaBatchTopKSAE(D_IN, D_SAE, 6, [10, 30])
    return getattr(classes("dictionary"), name)(D_IN, D_SAE)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
    ],
)  # fmt: skip
def test_what_dictionary_learning_saves_atomlab_reads(tmp_path: Path, name: str, nested: bool) -> None:
    torch.manual_seed(0)
    theirs = made(name)
    with torch.no_grad():
        for key, value in theirs.named_parameters():
            if value.ndim == 1:
                value.copy_(torch.rand(len(value)) * 0.3 if key == "threshold" else 0.3 * torch.randn(len(value)))
        if "threshold" in dict(theirs.named_buffers()):
            theirs.threshold.fill_(0.4)
    state = theirs.state_dict()
    torch.save({"step": 3, "ae": state, "optimizer": {}, "norm_factor": None} if nested else state, tmp_path / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 2, "lm_name": "gpt2"}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"io": "out", "ctx_len": 64}}))
    ours, x = load_sae(tmp_path), torch.randn(300, D_IN)
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
