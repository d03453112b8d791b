"""A model whose file lacks weights that run is refused; one that lacks what does not run is not."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForMaskedLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from atomlab.activations.model.capture import capture
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from tests.activations.conftest import FAMILIES
from tests.tiny import CONFIG, save_model

POINT = HookPoint.parse("model.layers.1.output")
IDS = {"input_ids": torch.randint(4, 250, (2, 9), generator=torch.Generator().manual_seed(0))}
Weights = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model")
    return tmp_path / "model"


def lm(folder: Path) -> LanguageModel:
    return LanguageModel(str(folder), dtype="float32", device="cpu")


def change(folder: Path, made: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    save_file({name: value.clone() for name, value in made(load_file(file)).items()}, file, {"format": "pt"})


def configure(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def without(pattern: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if not re.search(pattern, name)}


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "base_model.model."])
def test_a_wrapper_s_prefix_is_named(folder: Path, wrapper: str) -> None:
    """faults.md A1: compile's, DDP's and PEFT's names; every weight would be random."""
    change(folder, lambda weights: {wrapper + name: value for name, value in weights.items()})
    with pytest.raises(ValueError, match=rf"lack .* and \d+ more, .*random.*begin with '{re.escape(wrapper)}'"):
        lm(folder).load([POINT])


def test_missing_weights_of_layers_that_run_are_named(folder: Path) -> None:
    """faults.md A1: `layers.1.mlp` dropped."""
    change(folder, without(r"layers\.1\.mlp"))
    names = ", ".join(f"model.layers.1.mlp.{name}_proj.weight" for name in ("down", "gate", "up"))
    for points in ([POINT], None):
        with pytest.raises(ValueError, match=f"The weights of model lack {re.escape(names)}, which would run"):
            lm(folder).load(points)


def test_what_does_not_run_before_the_hook_point_may_be_missing(folder: Path) -> None:
    """Deeper layers, the last norm, the head, and what lies behind the hook point in its own layer."""
    expected = capture(lm(folder).load([POINT]), [POINT], IDS)[POINT]
    change(folder, without(r"layers\.2\.|model\.norm|lm_head"))
    assert torch.equal(capture(lm(folder).load([POINT]), [POINT], IDS)[POINT], expected)
    change(folder, without(r"layers\.1\.mlp\.down_proj"))
    inside = HookPoint.parse("model.layers.1.mlp.down_proj.input")
    assert capture(lm(folder).load([inside]), [inside], IDS)[inside].shape == (2, 9, 48)
    with pytest.raises(ValueError, match=r"lack model\.layers\.1\.mlp\.down_proj\.weight, which"):
        lm(folder).load([POINT])


def test_another_task_s_head(tmp_path: Path) -> None:
    """faults.md A1: a classifier's file has no language-model head; activations need none, losses and logits do."""
    LlamaForSequenceClassification(CONFIG).save_pretrained(tmp_path)
    assert capture(lm(tmp_path).load([POINT]), [POINT], IDS)[POINT].shape == (2, 9, 32)
    with pytest.raises(ValueError, match=r"lack lm_head\.weight, which"):
        lm(tmp_path).load()
    with pytest.raises(ValueError, match=r"lack lm_head\.weight, which"):
        lm(tmp_path).unembedding()


def test_tied_heads_and_poolers_are_no_false_alarm(tmp_path: Path) -> None:
    tied = LlamaForCausalLM(LlamaConfig(**CONFIG.to_dict() | {"tie_word_embeddings": True}))
    tied.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert torch.equal(lm(tmp_path / "tied").load().get_output_embeddings().weight, tied.model.embed_tokens.weight)  # type: ignore[operator]
    torch.testing.assert_close(lm(tmp_path / "tied").unembedding(), tied.lm_head.weight.detach())
    BertForMaskedLM(FAMILIES["bert"]).save_pretrained(tmp_path / "bert")
    point = HookPoint.parse("encoder.layer.2.output")
    ids = {"input_ids": IDS["input_ids"] % 64}
    pair = [capture(lm(tmp_path / "bert").load(points), [point], ids)[point] for points in ([point], None)]
    assert torch.equal(*pair)


def test_a_configuration_with_more_layers_than_the_file(folder: Path) -> None:
    """faults.md A1."""
    configure(folder, num_hidden_layers=5)
    lm(folder).load([HookPoint.parse("model.layers.2.output")])
    with pytest.raises(ValueError, match=r"lack model\.layers\.3\..* and \d+ more"):
        lm(folder).load([HookPoint.parse("model.layers.3.output")])


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    """faults.md A1: both where the model is identified and where it is loaded."""
    LlamaForCausalLM(CONFIG).save_pretrained(tmp_path, max_shard_size="60KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ValueError, match=f"could not be loaded because the file {lost.name} is not there"):
        _ = lm(tmp_path).fingerprint
    with pytest.raises(ValueError, match=rf"The weights of .* could not be loaded because .*{lost.name}"):
        lm(tmp_path).load([POINT])


def test_weights_of_another_shape_are_named(folder: Path) -> None:
    change(folder, lambda weights: weights | {"model.layers.0.mlp.up_proj.weight": torch.zeros(40, 32)})
    with pytest.raises(
        ValueError, match=r"layers\.0\.mlp\.up_proj\.weight has shape \(40, 32\) in the file and \(48, 32\)"
    ):
        lm(folder).load([POINT])


@pytest.mark.parametrize(("name", "size"), [("self_attn.q_proj.bias", 32), ("self_attn.q_norm.weight", 8)])
def test_weights_of_a_layer_that_runs_without_a_parameter_for_them(folder: Path, name: str, size: int) -> None:
    """Nobody reported it: Qwen 2's biases and Qwen 3's norms under a Llama's configuration were left out in silence."""
    change(folder, lambda weights: weights | {f"model.layers.2.{name}": torch.ones(size)})
    lm(folder).load([POINT])
    with pytest.raises(
        ValueError, match=rf"hold model\.layers\.2\.{re.escape(name)}, for which its configuration has no parameter"
    ):
        lm(folder).load([HookPoint.parse("model.layers.2.output")])


def test_buffers_of_old_files_are_no_weights(folder: Path) -> None:
    old = {f"model.layers.1.self_attn.{name}": torch.ones(4) for name in ("bias", "masked_bias", "rotary_emb.inv_freq")}
    change(folder, lambda weights: weights | old)
    assert lm(folder).load([POINT]) is not None


def test_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    """Nobody reported it: without PEFT, transformers loads the base model alone in silence."""
    (folder / "adapter_config.json").write_text("{}")
    shutil.copytree(folder, tmp_path / "alone", ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
    for each in (folder, tmp_path / "alone"):
        with pytest.raises(ValueError, match=f"{each.name} holds a PEFT adapter .*merge"):
            lm(each).load([POINT])


class _Evil:
    def __reduce__(self) -> tuple:
        return (print, ("code ran",))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": _Evil()}, folder / "pytorch_model.bin", pickle_module=pickle)


def _halved(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_halved, "The weights of model could not be loaded because of this: .*incomplete"),
    "pickle": (_pickled, "The weights of model could not be loaded because .*pickle .*save the model as safetensors"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "The weights of model could not be .*model.safetensors",
    ),
    "quantised": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "The weights of model could not be loaded because of this: .*(gptq|GPTQ|optimum)",
    ),
    "unknown type": (lambda f: configure(f, model_type="nonesuch"), "The model of model could not be .*nonesuch"),
    "wrong value": (
        lambda f: configure(f, num_hidden_layers="three"),
        "The model of model could not be .*num_hidden_la",
    ),
    "bad json": (
        lambda f: (f / "config.json").write_text("{"),
        "The model of model could not be loaded because of this",
    ),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        "The model of model could not be loaded because of this: .*con",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_exists_is_told_what_is_wrong_with_it(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """faults.md C5: third parties' errors came as they were, or as "neither a local model folder nor"."""
    inflict, said = DAMAGES[damage]
    inflict(folder)
    with pytest.raises(ValueError, match=said) as raised:
        lm(folder).load([POINT])
    assert "\n" not in str(raised.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_pickle_of_tensors_alone_is_read(folder: Path) -> None:
    """faults.md C5: older models have no other file."""
    expected = capture(lm(folder).load([POINT]), [POINT], IDS)[POINT]
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(capture(lm(folder).load([POINT]), [POINT], IDS)[POINT], expected)


def test_a_damaged_tokenizer_is_told(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="The tokenizer of model could not be loaded because"):
        _ = lm(folder).tokenizer
