"""The real overcomplete: its own files are refused, and what docs/interop.md advises reproduces its codes.

Its package imports computer vision libraries, which the SAEs themselves do not need.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atomlab import load_sae
from peers.part_of_package import import_part

D_IN, D_SAE = 12, 40


def made(name: str) -> Any:
    torch.manual_seed(0)
    sae = getattr(import_part("overcomplete", "overcomplete.sae", "overcomplete"), name)
    theirs = sae(D_IN, D_SAE, top_k=6) if name == "TopKSAE" else sae(D_IN, D_SAE)
    with torch.no_grad():
        for value in theirs.parameters():
            if value.ndim == 1:
                value.copy_(0.3 * torch.randn(len(value)))
    return theirs.eval()


@pytest.mark.parametrize("name", ["TopKSAE", "JumpSAE"])
def test_its_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    theirs = made(name)
    torch.save(theirs, tmp_path / "sae.pt")
    with pytest.raises(ValueError, match=r"sae\.pt holds pickled Python objects .+ so it is not opened") as refused:
        load_sae(tmp_path / "sae.pt")
    assert "\n" not in str(refused.value)
    torch.save(theirs.state_dict(), tmp_path / "state.pt")
    with pytest.raises(FileNotFoundError, match=r"state\.pt holds no SAE of a known format"):
        load_sae(tmp_path / "state.pt")


@pytest.mark.parametrize("name", ["TopKSAE", "JumpSAE"])
def test_the_tensors_by_the_names_of_circuit_tracer_are_read(tmp_path: Path, name: str) -> None:
    theirs = made(name)
    linear = theirs.encoder.final_block[0]
    tensors = {
        "W_enc": linear.weight,
        "b_enc": linear.bias,
        "W_dec": theirs.get_dictionary(),
        "b_dec": torch.zeros(D_IN),
    }
    if name == "JumpSAE":
        tensors["activation_function.threshold"] = theirs.thresholds.exp()
    else:
        tensors["k"] = torch.tensor(theirs.top_k)
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, tmp_path / "sae.safetensors")
    (tmp_path / "config.yaml").write_text("feature_input_hook: layer4\nfeature_output_hook: layer4\n")
    ours, x = load_sae(tmp_path / "sae.safetensors"), torch.randn(300, D_IN)
    _, codes, x_hat = theirs(x)
    assert 0 < float((codes > 0).float().mean()) < 0.5
    torch.testing.assert_close(ours.encode(x), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), x_hat, rtol=1e-5, atol=1e-5)
