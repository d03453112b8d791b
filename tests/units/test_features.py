"""Imported SAEs: one saved by the real sae-lens 6.54.12 (with what it computes), and Gemma Scope's layout against its
published formula.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atomlab.units import features

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
    unit = features(SAELENS, 6, "of sae-lens")
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
        unit = features(path, 5)
        torch.testing.assert_close(unit.encode(torch.from_numpy(x)).to_dense(), torch.from_numpy(codes))
        x_hat = unit.reconstruct(torch.from_numpy(x))
        torch.testing.assert_close(x_hat, torch.from_numpy(codes @ arrays["W_dec"] + arrays["b_dec"]))


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width 6 and this site has 8"):
        features(SAELENS, 8)
    with pytest.raises(FileNotFoundError, match=r"cfg\.json is missing"):
        features(tmp_path / "nowhere", 8)
    arrays = params()
    np.savez(tmp_path / "a.npz", **{key: a for key, a in arrays.items() if key != "threshold"})
    with pytest.raises(ValueError, match="has no threshold"):
        features(tmp_path / "a.npz", 5)
    np.savez(tmp_path / "b.npz", **(arrays | {"b_dec": np.full(5, np.nan, np.float32)}))
    with pytest.raises(ValueError, match="b_dec should be finite"):
        features(tmp_path / "b.npz", 5)
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"no readable \.npz"):
        features(tmp_path / "c.npz", 5)


def test_an_sae_that_wants_normalised_inputs_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SAELENS, tmp_path / "sae")
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "layer_norm"}))
    with pytest.raises(ValueError, match="normalize_activations=layer_norm"):
        features(tmp_path / "sae", 6)
