"""Imported SAEs: one saved by the real sae-lens 6.54.12 (with what it computes), and Gemma Scope's layout against its
published formula.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atomlab.interop import load
from atomlab.interop.locate import with_atoms
from atomlab.units import atoms

SAELENS = (
    Path(__file__).parent / "saelens"
)  # JumpReLUSAE(d_in=6, d_sae=10).save_model(...); expected = its encode and decode


def params(d_in: int = 5, d_sae: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "W_enc": rng.normal(size=(d_in, d_sae)).astype(np.float32),
        "W_dec": rng.normal(size=(d_sae, d_in)).astype(np.float32),
        "b_enc": rng.normal(size=d_sae).astype(np.float32),
        "b_dec": rng.normal(size=d_in).astype(np.float32),
        "threshold": rng.uniform(size=d_sae).astype(np.float32),
    }


def test_an_sae_saved_by_sae_lens_computes_what_sae_lens_computes() -> None:
    expected = load_file(SAELENS / "expected.safetensors")
    unit = atoms(load(SAELENS), "of sae-lens")
    codes = unit.encode(expected["x"])
    torch.testing.assert_close(codes.to_dense(), expected["codes"])
    torch.testing.assert_close(unit.decode(codes), expected["x_hat"])
    assert (unit.name, unit.d_sae, unit.signed) == ("of sae-lens", 10, False)


@pytest.mark.parametrize("lower", [False, True])
def test_gemma_scope_is_relu_above_its_threshold_without_centring(tmp_path: Path, lower: bool) -> None:
    arrays = params()
    np.savez(tmp_path / "params.npz", **{key.replace("W_", "w_" if lower else "W_"): a for key, a in arrays.items()})
    x = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    z = x @ arrays["W_enc"] + arrays["b_enc"]
    codes = np.maximum(z, 0) * (z > arrays["threshold"])
    for path in (tmp_path, tmp_path / "params.npz"):
        unit = atoms(load(path))
        torch.testing.assert_close(unit.encode(torch.from_numpy(x)).to_dense(), torch.from_numpy(codes))
        x_hat = unit.reconstruct(torch.from_numpy(x))
        torch.testing.assert_close(x_hat, torch.from_numpy(codes @ arrays["W_dec"] + arrays["b_dec"]))


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    arrays = params()
    np.savez(tmp_path / "a.npz", **{key: a for key, a in arrays.items() if key != "threshold"})
    with pytest.raises(ValueError, match="has no threshold"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **(arrays | {"b_dec": np.full(5, np.nan, np.float32)}))
    with pytest.raises(ValueError, match="b_dec should be finite"):
        load(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"no readable \.npz"):
        load(tmp_path / "c.npz")


def rewritten(folder: Path, config: Mapping[str, object] | None = None, **weights: torch.Tensor) -> Path:
    """A copy of the SAE that sae-lens saved, with some of it changed; None takes a key out of the configuration."""
    shutil.copytree(SAELENS, folder)
    changed = {**json.loads((folder / "cfg.json").read_text()), **(config or {})}
    (folder / "cfg.json").write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    save_file(load_file(folder / "sae_weights.safetensors") | weights, folder / "sae_weights.safetensors")
    return folder


def test_a_negative_threshold_acts_as_zero_as_in_sae_lens(tmp_path: Path) -> None:
    """relu(z)·[z > θ], sae-lens's formula and Gemma Scope's."""
    theta = torch.linspace(-2, 0.5, 10)
    sae = load(rewritten(tmp_path / "sae", threshold=theta))
    weights, x = load_file(SAELENS / "sae_weights.safetensors"), torch.randn(200, 6)
    z = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    assert ((z > theta) & (z < 0)).any()
    torch.testing.assert_close(sae.encode(x), z.relu() * (z > theta))
    arrays = params() | {"threshold": np.full(7, -1, np.float32)}
    np.savez(tmp_path / "params.npz", **arrays)
    x5 = torch.randn(200, 5)
    z5 = x5 @ torch.from_numpy(arrays["W_enc"]) + torch.from_numpy(arrays["b_enc"])
    torch.testing.assert_close(load(tmp_path / "params.npz").encode(x5), z5.relu())


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_standard_sae_is_a_relu(tmp_path: Path, centred: bool, legacy: bool) -> None:
    kind: dict[str, object] = {
        "metadata": None,
        "architecture": None,
        "activation_fn_str": "relu",
        "normalize_activations": False,
    }
    config = (kind if legacy else {"architecture": "standard"}) | {"apply_b_dec_to_input": centred}
    folder = rewritten(tmp_path / "sae", config)
    weights, x = load_file(folder / "sae_weights.safetensors"), torch.randn(50, 6)
    threshold = weights.pop("threshold")
    save_file(weights, folder / "sae_weights.safetensors")
    codes = ((x - centred * weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()
    assert ((codes > 0) & (codes < threshold)).any()
    sae = load(folder)
    torch.testing.assert_close(sae.encode(x), codes)
    torch.testing.assert_close(sae(x), codes @ weights["W_dec"] + weights["b_dec"])
    assert torch.equal(atoms(sae).encode(torch.zeros(1, 6)).to_dense() != 0, sae.encode(torch.zeros(1, 6)) > 0)


def test_sizes_that_are_not_said_come_from_the_weights(tmp_path: Path) -> None:
    sae = load(rewritten(tmp_path / "sae", {"d_in": None, "d_sae": None}))
    assert (sae.d_in, sae.d_sae) == (6, 10)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"normalize_activations": "layer_norm"}, "normalize_activations=layer_norm"),
        ({"normalize_activations": True}, "normalize_activations=True"),
        ({"reshape_activations": "other"}, "reshape_activations=other"),
        ({"architecture": "matching_pursuit"}, "'matching_pursuit' SAE, and only jumprelu"),
        ({"architecture": "standard", "activation_fn_str": "topk"}, "has a threshold, and cfg.json says"),
        ({"d_sae": 11}, r"has d_sae=11, and W_dec is of shape \(10, 6\)"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(tmp_path: Path, config: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(rewritten(tmp_path / "sae", config))


@pytest.mark.parametrize(
    ("text", "said"), [("{", "no readable JSON"), ("[]", "holds a list"), ("\udcff", "no readable JSON")]
)
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str, said: str) -> None:
    folder = rewritten(tmp_path / "sae")
    (folder / "cfg.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=said):
        load(folder)


def test_weights_that_need_folding_or_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scaling_factor"):
        load(rewritten(tmp_path / "a", scaling_factor=torch.full((10,), 2.0)))
    folder = rewritten(tmp_path / "b")
    save_file({"encoder.weight": torch.ones(3, 3)}, folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="has no W_dec"):
        load(folder)


def test_latents_that_decode_to_nothing_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, whole = torch.randn(50, 6), load(SAELENS)
    W_dec = whole.W_dec.detach().clone()
    W_dec[[2, 7, 9]] = 0
    W_dec[3] = 0
    W_dec[3, 1] = 1e-30  # tiny, and an atom
    folder = rewritten(tmp_path / "sae", W_dec=W_dec)
    assert load(folder).d_sae == 10  # Python sees the SAE as it is; rows of tables need atoms
    sae = with_atoms(load(folder), folder)
    assert "3 of 10 latents have a zero decoder row" in caplog.text
    kept = [0, 1, 3, 4, 5, 6, 8]
    torch.testing.assert_close(sae.encode(x), whole.encode(x)[:, kept])
    torch.testing.assert_close(sae(x), whole.encode(x) @ W_dec + whole.b_dec)
    save_file(load_file(folder / "sae_weights.safetensors") | {"W_dec": W_dec * 0}, folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="0 decoder rows that are not zero"):
        with_atoms(load(folder), folder)
