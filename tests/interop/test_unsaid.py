"""What the files of others leave open is asked for or said aloud, and numbers that fold into the weights are looked at first."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atomlab import load_sae, save_sae
from atomlab.interop import push_to_hub
from tests.interop.layouts import (
    _LLAMA,
    _LOG,
    _SCOPE,
    _TOP,
    FOUR,
    GATE,
    LAYOUTS,
    LINEAR,
    NORMS,
    P,
    X,
    into,
    learning,
    out,
    pre,
    saelens,
)

_STATED = {"act_fn": "jumprelu", "norm_activation": "inference", "sparsity_include_decoder_norm": True}
_FIRST = {"jump_relu_threshold": 0.7}


def llamascopium(folder: Path, weights: dict | None = None, **config: object) -> Path:
    stated = {key: value for key, value in (_SCOPE | _STATED | config).items() if value is not None}
    return into(folder, config__json=stated, sae_weights__safetensors=weights or _LLAMA | _LOG)


def new_saelens(folder: Path, **config: object) -> Path:
    """A TopK whose cfg.json has lost its architecture: its tensors are those of a ReLU."""
    saelens(folder, "topk", FOUR, metadata={"sae_lens_version": "6.0.0-rc.1"}, **config)
    stated = json.loads((folder / "cfg.json").read_text())
    del stated["architecture"]
    return into(folder, cfg__json=stated)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no activation": (lambda p: llamascopium(p, act_fn=None), "has act_fn=None: expected the name of an activation"),
    "not whether norms count": (
        lambda p: llamascopium(p, sparsity_include_decoder_norm=None),
        "has sparsity_include_decoder_norm=None: expected true or false",
    ),
    "thresholds of a ReLU": (
        lambda p: llamascopium(p, act_fn="relu"),
        r"has activation_function\.log_jumprelu_threshold, which a Llamascopium SAE does not have",
    ),
    "no scale": (
        lambda p: llamascopium(p, norm_activation=None),
        r"has no dataset_average_activation_norm\.blocks\.2\.hook_resid_post: expected the mean norm of the inputs",
    ),
    "an unknown scale": (lambda p: llamascopium(p, norm_activation="layer"), "norm_activation='layer', which no SAE class"),
    "no scale of Llama Scope": (
        lambda p: into(p, hyperparams__json=_SCOPE | _FIRST, checkpoints___final__safetensors=LINEAR),
        "expected the mean norm of the inputs, since hyperparams.json has norm_activation=None",
    ),
    "no architecture of SAELens 6": (
        lambda p: new_saelens(p, k=3), "has no architecture: expected one of jumprelu, standard, gated, topk"
    ),
    **{
        f"a factor {factor}": (
            lambda p, factor=factor: learning(p, "BatchTopKSAE", _TOP, norm_factor=factor),
            rf"ae\.pt has norm_factor={factor!r}: expected a number above 0",
        )
        for factor in (0.0, -2.0, float("inf"), "two")
    },
    **{
        f"a threshold {value}": (
            lambda p, value=value: saelens(
                p, "batchtopk", FOUR | {"topk_threshold": torch.tensor(value, dtype=torch.float64)}, k=3
            ),
            "has no number topk_threshold of 0 or more",
        )
        for value in (-1.0, float("nan"), float("inf"))
    },
    "a magnitude that overflows": (
        lambda p: saelens(
            p, "gated", {k: v for k, v in FOUR.items() if k != "b_enc"} | GATE | {"r_mag": torch.full((7,), 100.0)}
        ),
        r"has finite tensors and a \w+ that is not finite in float32 once the scales",
    ),
    "a logarithm that overflows": (
        lambda p: saelens(p, "jumprelu", FOUR | {"log_threshold": torch.full((7,), 100.0)}),
        "and a threshold that is not finite in float32 once the scales, norms and logarithms",
    ),
    "a scale above every float": (
        lambda p: into(
            saelens(p, "jumprelu", P, normalize_activations="expected_average_only_in"),
            activation_scaler__json={"scaling_factor": 10**400},
        ),
        "scaling_factor=1000.*: expected a number above 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_the_codes_is_not_guessed(tmp_path: Path, case: str) -> None:
    write, said = REFUSED[case]
    with pytest.raises(ValueError, match=said) as error:
        load_sae(write(tmp_path))
    assert "\n" not in str(error.value)


def test_an_old_saelens_folder_without_an_architecture_is_a_relu_as_saelens_reads_it(tmp_path: Path) -> None:
    into(tmp_path, cfg__json={"d_in": 5, "d_sae": 7}, sae_weights__safetensors=FOUR)
    torch.testing.assert_close(load_sae(tmp_path).encode(X), pre(X, True).relu(), rtol=1e-5, atol=1e-5)


def test_an_atom_that_is_zero_never_fires_where_norms_count_and_is_saved_again(tmp_path: Path) -> None:
    """z·‖d‖ = 0 is above no threshold; the others have z·‖d‖ > θ."""
    W_dec = P["W_dec"].clone()
    W_dec[2] = 0
    place = llamascopium(tmp_path / "theirs", _LLAMA | _LOG | {"W_D": W_dec})
    norms = NORMS.clone()
    norms[2] = 0
    codes = pre(X) * (pre(X) * norms > P["threshold"])
    assert not codes[:, 2].any()
    ours = load_sae(place)
    for sae in (ours, load_sae(save_sae(ours, tmp_path / "ours"))):
        torch.testing.assert_close(sae.encode(X), codes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sae(X), out(codes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Gemma Scope, of no known site", None),
        ("Gemma Scope, without its repository", "att"),
        ("Gemma Scope 2", "config.json"),
        ("dictionary_learning BatchTopK", "config.json"),
    ],
)
def test_an_sae_that_may_be_a_transcoder_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, kept: str | None
) -> None:
    load_sae(LAYOUTS[name].write(tmp_path / "there"))
    assert ("may be a transcoder" in caplog.text) == (kept is None)


@pytest.mark.parametrize("name", ["Gemma Scope 2", "dictionary_learning AutoEncoder"])
def test_without_its_configuration_an_sae_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    place = LAYOUTS[name].write(tmp_path / "there")
    while not (place / "config.json").exists():
        place = next(place.iterdir())
    (place / "config.json").unlink()
    bare = place.rename(tmp_path / "bare")
    torch.testing.assert_close(load_sae(bare).encode(X), LAYOUTS[name].codes, rtol=1e-5, atol=1e-5)
    assert "may be a transcoder, whose tensors are the same" in caplog.text


def test_a_damaged_sae_is_not_uploaded(tmp_path: Path) -> None:
    save_sae(load_sae(LAYOUTS["SAELens jumprelu"].write(tmp_path / "theirs")), tmp_path / "ours")
    weights = tmp_path / "ours" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="is damaged or was changed since it was saved"):
        push_to_hub(tmp_path / "ours", "me/new")


def test_files_that_say_what_they_are_are_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in LAYOUTS.keys() - {"Gemma Scope, of no known site"}:
        load_sae(LAYOUTS[name].write(tmp_path / name))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
