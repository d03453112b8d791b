"""From a run's folder to the atoms of a text and to a steered one, against the model called by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

import atomlab
from atomlab import LanguageModel, ThresholdSAE, ablate, add, atoms_of, load, open_run, save_sae, steer
from atomlab.identity import FORMAT
from tests.tiny import WORDS, save_model, tokenizer

POINT = "model.layers.1.output"
TEXT = " ".join(WORDS[number] for number in (5, 9, 200, 5, 31))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like one of train.py, as far as it is read here; its model has a path relative to where it was started."""
    place = tmp_path_factory.mktemp("place")
    save_model(place / "model")
    folder = place / "outputs" / "run"
    (folder / ".hydra").mkdir(parents=True)
    configuration = (
        "named: model\nmodel:\n  _target_: atomlab.activations.LanguageModel\n  name: ${named}\n  dtype: float32\n"
        "  device: cpu\n"
    )
    (folder / ".hydra" / "config.yaml").write_text(configuration)
    (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    cwd: {json.dumps(str(place))}\n")
    torch.manual_seed(3)
    sae = ThresholdSAE(32, 50)
    with torch.no_grad():
        sae.threshold += 0.5
        sae.b_dec += torch.randn(32)
    identity = {
        "format": FORMAT,
        "model": LanguageModel(str(place / "model"), dtype="float32").fingerprint,
        "hook_point": POINT,
        "activations": {"tokens": {"drop_first": True, "drop_special": True}},
    }
    save_sae(sae, folder / "sae", {"hook_name": POINT, "atomlab_identity": identity})
    return folder


def model_and_tokenizer(run: Path) -> tuple[Any, Any]:
    folder = run.parent.parent / "model"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        folder
    )


@torch.no_grad()
def test_the_atoms_of_a_text_are_those_of_the_models_activations(run: Path) -> None:
    model, words = model_and_tokenizer(run)
    ids = words(TEXT, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == 1
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[2][0]  # after the second layer
    sae = load(str(run / "sae"))
    expected = {}
    for position in range(1, ids.shape[1]):  # position 0 is <s>
        code = torch.relu(hidden[position] @ sae.W_enc + sae.b_enc)
        for atom in range(50):
            if code[atom] > sae.threshold[atom]:
                expected[position, atom] = float(code[atom])
    found = atoms_of(TEXT, str(run))
    assert {(row.position, row.atom) for row in found} == expected.keys()
    assert len(found) == len(expected) > 10
    for row in found:
        assert row.activation == pytest.approx(expected[row.position, row.atom], rel=1e-4)
        assert row.token.strip() == TEXT.split()[row.position - 1]
    order = [(row.position, -row.activation) for row in found]
    assert order == sorted(order)
    assert atoms_of(TEXT, run) == atoms_of(TEXT, open_run(run)) == atoms_of(TEXT, run / "sae") == found


@torch.no_grad()
def test_steering_goes_on_through_the_generated_tokens(run: Path) -> None:
    """Against the whole text run anew for each token, without a cache, and the atom added by a hook written out."""
    model, words = model_and_tokenizer(run)
    opened = open_run(run)

    def added(_m: object, _a: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, 1:] += 40.0 * opened.sae.W_dec[7]
        return changed

    def expected(hook: Any) -> str:
        ids = words(TEXT, return_tensors="pt")["input_ids"]
        length = ids.shape[1]
        handle = model.get_submodule("model.layers.1").register_forward_hook(hook)
        for _ in range(8):
            ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        handle.remove()
        return TEXT + words.decode(ids[0, length:], skip_special_tokens=True)

    own = expected(lambda _m, _a, output: output)
    steered = expected(added)
    assert steered != own
    assert steer(TEXT, opened, (), max_new_tokens=8) == own
    assert steer(TEXT, opened, add(40.0, 7), max_new_tokens=8) == steered
    assert steer(TEXT, run, [add(40.0, 7), ablate(7)], max_new_tokens=8) == expected(
        lambda _m, _a, x: torch.cat(
            [x[:, :1], x[:, 1:] - opened.sae.encode(x[:, 1:])[..., 7:8] * opened.sae.W_dec[7]], 1
        )
    )
    assert not any(module._forward_hooks for module in opened.model.modules())


def test_a_run_that_does_not_fit_is_refused_in_a_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The text is empty"):
        atoms_of("", open_run(run, model=unframed(run, tmp_path)))
    with pytest.raises(ValueError, match="The text has 101 tokens and the model has room for 64"):
        atoms_of("w1 " * 100, run)
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"does not belong to this run: model\.folder was .* give the model"):
        open_run(run, model=LanguageModel(str(tmp_path / "other"), dtype="float32"))
    save_sae(ThresholdSAE(32, 40), tmp_path / "bare", {})
    with pytest.raises(ValueError, match="does not say where its SAE belongs"):
        open_run(tmp_path / "bare")
    with pytest.raises(ValueError, match="does not say which language model it belongs to"):
        open_run(tmp_path / "bare", point=POINT)
    opened = open_run(tmp_path / "bare", point=POINT, model=LanguageModel(str(tmp_path / "other"), dtype="float32"))
    assert atoms_of(TEXT, opened)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("model:\n  _target_: os.system\n  command: touch broken\n")
    save_sae(ThresholdSAE(32, 40), tmp_path / "sae", {"hook_name": POINT})
    with pytest.raises(ValueError, match=r"names the model os\.system, which is none of atomlab"):
        open_run(tmp_path)


def unframed(run: Path, folder: Path) -> LanguageModel:
    """The run's model with a tokenizer that puts nothing in front; its fingerprint is that of the run's."""
    model = LanguageModel(str(run.parent.parent / "model"), dtype="float32", device="cpu")
    bare = model.tokenizer
    _ = model.fingerprint  # is of the tokenizer as it was, and is kept
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return model


def test_an_encoder_has_atoms_and_continues_nothing(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer().save_pretrained(tmp_path / "bert")
    save_sae(ThresholdSAE(32, 40), tmp_path / "sae", {"hook_name": "encoder.layer.1.output"})
    opened = open_run(tmp_path / "sae", model=LanguageModel(str(tmp_path / "bert"), dtype="float32", device="cpu"))
    assert {row.position for row in atoms_of(TEXT, opened)} <= {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="bert is an encoder and continues no text"):
        steer(TEXT, opened, ())


def test_importing_atomlab_imports_no_heavy_library() -> None:
    """In a process of its own; every name that it offers exists and is listed."""
    script = "import sys, atomlab; print(*(name for name in ('torch', 'transformers', 'hydra') if name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []
    assert set(atomlab.__all__) == set(atomlab._PLACES)
    for name in atomlab.__all__:
        assert getattr(atomlab, name).__name__ == (atomlab._PLACES[name].partition(":")[2] or name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = atomlab.nothing
