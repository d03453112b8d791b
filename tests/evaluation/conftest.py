"""A tiny random language model, a corpus of random words (some of them hostile), and harvested activations, all through
the real code.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from atomlab.activations.batches.order import TrainingBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.store.outliers import Outliers
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.evaluation import Retraining, StudyInputs
from atomlab.identity import FORMAT
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import TargetL0
from atomlab.training.recipe import Architecture, Calibration, TrainingRecipe

WORDS = ["[UNK]", "<s>", "</s>", "<script>alert(1)</script>", '"><img/onerror=alert(2)>', *(f"w{i}" for i in range(59))]
CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt2": GPT2Config(vocab_size=64, n_embd=16, n_layer=3, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2),
}


@pytest.fixture(scope="session")
def models_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    found = {}
    for name, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp("models") / name
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folder)
        found[name] = LanguageModel(str(folder), dtype="float32", device="cpu")
    return found


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    generator = torch.Generator().manual_seed(0)
    lines = []
    for _ in range(40):
        ids = torch.randint(3, 64, (60,), generator=generator).tolist()
        lines.append(json.dumps({"text": " ".join(WORDS[i] for i in ids)}))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def data_of(
    models_of: dict[str, LanguageModel], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ActivationDataModule]:
    cache = tmp_path_factory.mktemp("cache")

    def opened(family: str = "llama", site: str = "resid_post", layer: int = 1) -> ActivationDataModule:
        text = LocalText(str(corpus))
        data = ActivationDataModule(
            models_of[family],
            text,
            text,
            hook_points=HookPoints(site=site, layer=layer),
            tokens=TokenRules(context=32, fractions=(0.6, 0.1, 0.3)),
            outliers=Outliers(max_norm_ratio=None),
            harvest=HarvestOptions(cache_dir=str(cache)),
            batches=TrainingBatches(size=64, steps=20),
        )
        data.prepare_data()
        data.setup()
        return data

    return opened


@pytest.fixture
def inputs(data_of: Callable[..., ActivationDataModule], tmp_path: Path) -> StudyInputs:
    trainer = partial(
        lightning.Trainer,
        accelerator="cpu",
        devices=1,
        max_steps=20,
        max_epochs=1,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    data = data_of()
    return StudyInputs(
        data=data,
        retraining=Retraining(
            Architecture(expansion=2), TrainingRecipe(TargetL0(1.0, 4.0), Calibration(l0=4.0)), 1e-3, trainer, 64, 20
        ),
        sample_sizes=SampleSizes(
            measured=200,
            certified=50,
            solved=20,
            supports=16,
            controls=1000,
            loss_tokens=100,
            browsed=300,
            contexts=3,
            batch=64,
            resampled=50,
        ),
        folder=tmp_path,
        seed=0,
        configuration="<b>config</b>",
        setting="of the test",
        identity={"format": FORMAT, **data.identity},
    )
