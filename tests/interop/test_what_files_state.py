"""What a file states beside the weights is kept when it is written, and honoured when it is read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.interop import load
from atomlab.interop.locate import with_atoms
from atomlab.interop.sae_from_tensors import read_transform

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def centring(centred: bool = True) -> ThresholdSAE:
    """A TSAE whose b_dec matters to the encoder if it is subtracted."""
    torch.manual_seed(0)
    sae = ThresholdSAE(4, 6, apply_b_dec_to_input=centred)
    with torch.no_grad():
        sae.b_dec.normal_(std=2)
        sae.b_enc.normal_()
    return sae


def rewrite(folder: Path, **config: object) -> None:
    (folder / "SHA256SUMS").unlink(missing_ok=True)  # or the change is taken for damage
    stated = json.loads((folder / "cfg.json").read_text()) | config
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in stated.items() if value is not ...}))


@pytest.mark.parametrize("centred", [True, False])
def test_whether_b_dec_is_subtracted_is_saved_with_the_metadata(tmp_path: Path, centred: bool) -> None:
    sae = centring(centred)
    save_sae(sae, tmp_path, {"hook_name": "model.layers.3.output", "context_size": 64})
    torch.testing.assert_close(load_sae(tmp_path).encode(X), sae.encode(X), rtol=0, atol=0)
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert (metadata["hook_name"], metadata["context_size"]) == ("model.layers.3.output", 64)


def test_sae_lens_subtracts_b_dec_where_the_folder_does_not_say(tmp_path: Path) -> None:
    """`apply_b_dec_to_input` is true by default in SAELens."""
    save_sae(centring(), tmp_path, {})
    rewrite(tmp_path, apply_b_dec_to_input=...)
    found = load_sae(tmp_path).encode(X)
    assert torch.equal(found, centring(True).encode(X))
    assert not torch.equal(found, centring(False).encode(X))


def test_one_atom_is_no_dictionary(tmp_path: Path) -> None:
    save_sae(centring(), tmp_path, {})
    rewrite(tmp_path, metadata={})  # without the checksum of the weights
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_dec"][1:] = 0
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="at least 2 atoms"):
        with_atoms(load(tmp_path), tmp_path)


def test_an_inverse_that_is_off_by_ten_roundings_is_refused() -> None:
    """M = 3·1 and M⁻¹ = 1/3·1: |M||M⁻¹| = 1, so that rounding explains 2u, u = 2⁻²⁴, and 4u are allowed."""
    eye = torch.eye(3)
    tensors = {"mean": torch.zeros(3), "matrix": 3 * eye, "inverse": eye / 3}
    read_transform(tensors, 3, Path("somewhere"))
    tensors["inverse"] = tensors["inverse"] * (1 + 10 * 2.0**-24)
    with pytest.raises(ValueError, match="is not the inverse"):
        read_transform(tensors, 3, Path("somewhere"))
