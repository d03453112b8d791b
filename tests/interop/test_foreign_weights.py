"""Weights, transforms and configurations from elsewhere: sound, or refused in one sentence."""

import json
import logging
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.interop import load
from atomlab.interop.sae_from_tensors import read_transform, sae_of_weights
from atomlab.sae import InputTransform

SOURCE = Path("somewhere")


def parameters(d_in: int = 5, d_sae: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    values = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return values | {"threshold": torch.rand(d_sae, generator=generator)}


def folder_of(tmp_path: Path, weights: Mapping[str, torch.Tensor], **config: object) -> Path:
    """A folder as SAELens writes it, without a checksum; a field that is ... is left out."""
    tmp_path.mkdir(exist_ok=True)
    stated = {"architecture": "jumprelu", "d_in": 5, "d_sae": 7, "apply_b_dec_to_input": False} | config
    (tmp_path / "cfg.json").write_text(json.dumps({name: value for name, value in stated.items() if value is not ...}))
    save_file(dict(weights), tmp_path / "sae_weights.safetensors")
    return tmp_path


def archive_of(tmp_path: Path, weights: Mapping[str, object]) -> Path:
    np.savez(tmp_path / "params.npz", **{name: np.asarray(value) for name, value in weights.items()})
    return tmp_path / "params.npz"


BAD = {
    "not a number": ({"b_dec": torch.tensor([0, 1, torch.nan, 2, 3])}, "b_dec should be finite in float32, found nan"),
    "infinite": ({"W_dec": torch.full((7, 5), -torch.inf)}, "W_dec should be finite in float32, found -inf"),
    "too large for float32": ({"b_enc": torch.full((7,), 1e39, dtype=torch.float64)}, "b_enc should be finite"),
    "integers": (
        {"W_enc": torch.ones(5, 7, dtype=torch.int32)},
        r"floating numbers of shape \(5, 7\), found torch.int32",
    ),
    "truth values": ({"threshold": torch.ones(7, dtype=torch.bool)}, "found torch.bool"),
    "another shape": ({"W_enc": torch.ones(7, 5)}, r"shape \(5, 7\), found torch.float32 of shape \(7, 5\)"),
    "one threshold": ({"threshold": torch.ones(())}, r"threshold should be floating numbers of shape \(7,\)"),
    "a skip connection": ({"W_skip": torch.zeros(5, 5)}, "has W_skip, which a threshold SAE does not have"),
    "nothing": ({"W_dec": torch.ones(0, 5)}, r"W_dec is of shape \(0, 5\) and holds nothing"),
    "no matrix": ({"W_dec": torch.ones(35)}, "no W_dec of shape"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["SAELens", "Gemma Scope", "checkpoint"])
def test_no_reader_takes_unsound_weights(tmp_path: Path, case: str, kind: str) -> None:
    """faults.md E2: one check for all."""
    changed, said = BAD[case]
    weights = parameters() | changed
    read = {
        "SAELens": lambda: load_sae(folder_of(tmp_path, weights)),
        "Gemma Scope": lambda: load(archive_of(tmp_path, weights)),
        "checkpoint": lambda: sae_of_weights(weights, SOURCE),
    }
    if (kind, case) == ("Gemma Scope", "a skip connection"):  # whose archives are known to hold transcoders
        said = "a Gemma Scope archive with a transcoder"
    with pytest.raises(ValueError, match=said) as error:
        read[kind]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_a_parameter_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    weights = {key: value for key, value in parameters().items() if key != name}
    for read in (
        lambda: load_sae(folder_of(tmp_path, weights)),
        lambda: load(archive_of(tmp_path, weights)),
        lambda: sae_of_weights(weights, SOURCE),
    ):
        with pytest.raises(ValueError, match=rf"has no {name}"):
            read()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_of_any_width_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in parameters().items()}
    sae = load_sae(folder_of(tmp_path, weights))
    assert all(torch.equal(value, weights[name].float()) for name, value in sae.state_dict().items())


def test_a_negative_threshold_is_zero_bit_for_bit() -> None:
    """relu(z)·[z > θ] at every kind of z, with θ below, at and above 0, and at −0."""
    theta = torch.tensor([-torch.inf, -1e30, -1.0, -1e-45, -0.0, 0.0, 1e-45, 0.5])[1:]
    z = torch.tensor([-3.0, -1.0, -0.5, -1e-45, -0.0, 0.0, 1e-45, 0.5, 0.5000001, 2.0])
    weights = {"W_enc": torch.zeros(1, 7), "W_dec": torch.ones(7, 1), "b_enc": torch.zeros(7), "b_dec": torch.zeros(1)}
    sae = sae_of_weights(weights | {"threshold": theta}, SOURCE)
    expected = z[:, None].relu() * (z[:, None] > theta)
    assert torch.equal(sae.activate(z[:, None].expand(-1, 7)), expected)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": ...}, "has a threshold, and cfg.json says architecture=None"),
        ({"architecture": "standard"}, "has a threshold, and cfg.json says architecture='standard'"),
        ({"architecture": "temporal"}, "'temporal' SAE"),
        ({"architecture": "gated"}, "has no b_gate, b_mag, r_mag"),
        ({"architecture": "skip_transcoder"}, "a SAELens folder with a transcoder"),
        ({"architecture": ["jumprelu"]}, "only jumprelu, standard"),
        *(({"apply_b_dec_to_input": value}, "expected true or false") for value in ("x", {}, 1.5, 1, None, "true")),
        ({"d_in": 5.0}, "d_in=5.0"),
        ({"d_sae": "7"}, "d_sae='7'"),
        ({"d_sae": True}, "d_sae=True"),
        ({"normalize_activations": "expected_average_only_in"}, "normalize_activations=expected_average_only_in"),
        ({"normalize_activations": []}, r"normalize_activations=\[\]"),
        ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm=True"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor=True"),
        ({"hook_head_index": 3}, "hook_head_index=3"),
        ({"hook_point_head_index": 3}, "hook_head_index=3"),
        ({"metadata": {"hook_head_index": 3}}, "hook_head_index=3"),
        ({"d_out": 5}, "d_out=5"),
        ({"skip": True}, "skip=True"),
        ({"activation_fn_kwargs": {"k": 3}}, "activation_fn_kwargs="),
        ({"activation_fn": "tanh-relu"}, "activation_fn=tanh-relu"),
        ({"metadata": [1]}, r"metadata=\[1\]"),
        ({"metadata": {"weights_sha256": 1}}, "its checksum is not the one in cfg.json"),
    ],
)
def test_a_configuration_that_says_another_function_is_refused(tmp_path: Path, config: dict, said: str) -> None:
    """faults.md E2: without an architecture all thresholds became zero in silence."""
    with pytest.raises(ValueError, match=said) as error:
        load_sae(folder_of(tmp_path, parameters(), **config))
    assert "\n" not in str(error.value)


def test_a_jumprelu_without_thresholds_is_refused_and_a_relu_of_an_old_saelens_is_read(tmp_path: Path) -> None:
    weights = parameters()
    del weights["threshold"]
    with pytest.raises(ValueError, match="has no threshold"):
        load_sae(folder_of(tmp_path / "a", weights))
    old = load_sae(folder_of(tmp_path / "b", weights, architecture=..., activation_fn_str="relu"))
    x = torch.randn(20, 5)
    torch.testing.assert_close(old.encode(x), (x @ weights["W_enc"] + weights["b_enc"]).relu())


def test_a_saved_sae_knows_its_weights_and_a_foreign_one_is_said_to_be_unchecked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """faults.md E3: a flipped bit of the weights, or of cfg.json, passed in silence."""
    caplog.set_level(logging.INFO)
    sae = ThresholdSAE(5, 7)
    save_sae(sae, tmp_path / "own", {"hook_name": "here"})
    assert all(torch.equal(v, sae.state_dict()[k]) for k, v in load_sae(tmp_path / "own").state_dict().items())
    assert "unchecked" not in caplog.text
    for name in ("sae_weights.safetensors", "cfg.json", "SHA256SUMS"):
        file = tmp_path / "own" / name
        content = file.read_bytes()
        for place in range(len(content)):
            file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
            with pytest.raises(ValueError, match="is damaged or was changed since it was saved: its SHA-256 is not"):
                load_sae(tmp_path / "own")
        file.write_bytes(content)
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "own").returncode == 0
    (tmp_path / "own" / "SHA256SUMS").unlink()  # an earlier version of atomlab wrote none
    load_sae(tmp_path / "own")
    flipped = tmp_path / "own" / "sae_weights.safetensors"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"damaged or of another SAE: its checksum is not the one in cfg\.json"):
        load_sae(tmp_path / "own")
    load_sae(folder_of(tmp_path / "foreign", parameters()))
    assert "foreign/sae_weights.safetensors is unchecked" in caplog.text


def test_saving_over_an_sae_replaces_both_files(tmp_path: Path) -> None:
    save_sae(ThresholdSAE(5, 7), tmp_path, {})
    save_sae(ThresholdSAE(6, 9), tmp_path, {})
    assert load_sae(tmp_path).d_sae == 9
    assert {file.name for file in tmp_path.iterdir()} == {"cfg.json", "sae_weights.safetensors", "SHA256SUMS"}


def test_a_flipped_bit_of_an_archive_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """faults.md E3, Gemma Scope's format: NumPy compares each array with the archive's CRC-32."""
    file = archive_of(tmp_path, parameters(2, 3))
    content, before = file.read_bytes(), load(file).state_dict()
    said = []
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            found = load(file).state_dict()
            assert all(torch.equal(found[name], value) for name, value in before.items()), place
        except ValueError as error:
            said.append(str(error))
    assert len(said) > sum(value.numel() * 4 for value in before.values())
    assert all(str(file) in each for each in said)


def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = {name: value.numpy() for name, value in parameters().items()}
    for bad in (
        np.array([None] * 5, dtype=object),
        np.array(["x"] * 5),
        np.zeros(5, complex),
        np.zeros(5, ">f4"),
        np.zeros(5, np.uint16),
        np.zeros(5, [("a", "f4")]),
    ):
        with pytest.raises(ValueError, match=r"params\.npz") as error:
            load(archive_of(tmp_path, weights | {"b_dec": bad}))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="has notes, which a threshold SAE does not have"):
        load(archive_of(tmp_path, weights | {"notes": np.zeros(3)}))
    np.save(tmp_path / "params.npy", np.zeros(3))
    (tmp_path / "params.npy").rename(tmp_path / "params.npz")
    with pytest.raises(ValueError, match=r"no readable \.npz"):
        load(tmp_path)


def lying(make: Callable[[Path], None], file: Path) -> Path:
    file.unlink()
    make(file)
    return file


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero"), Path.mkdir])
def test_only_ordinary_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """faults.md E5: a pipe in place of a file hangs, /dev/zero never ends."""
    said = "expected a regular file"
    for name in ("cfg.json", "sae_weights.safetensors"):
        folder = folder_of(tmp_path / name.replace(".", "-"), parameters())
        lying(make, folder / name)
        with pytest.raises(ValueError, match=said):
            load_sae(folder)
    lying(make, archive_of(tmp_path, parameters()))
    with pytest.raises(ValueError, match=said):
        load(tmp_path / "params.npz")


def whitening(d_in: int, condition: float) -> InputTransform:
    """A symmetric matrix with eigenvalues over the given range, as whitening has them, scaled as for training."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(d_in, d_in, dtype=torch.float64, generator=generator)).Q
    values = torch.logspace(0, torch.log10(torch.tensor(condition)).item(), d_in, dtype=torch.float64)
    matrix, inverse = basis * values @ basis.T, basis / values @ basis.T
    mean = torch.randn(d_in, dtype=torch.float64, generator=generator)
    second_moment = 3 * torch.eye(d_in, dtype=torch.float64) + torch.outer(mean, mean)
    return InputTransform.scaled(mean, matrix, inverse, second_moment)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_a_transform_and_its_inverse_are_read_as_they_were_written(condition: float) -> None:
    tensors = dict(whitening(48, condition).named_buffers())
    read = read_transform(tensors, 48, SOURCE)
    assert all(torch.equal(value, tensors[name]) for name, value in read.named_buffers())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t | {"matrix": t["matrix"] * torch.nan},
            r"transform\.matrix should be finite in float32, found nan",
        ),
        (lambda t: t | {"inverse": t["inverse"] / 0}, r"transform\.inverse should be finite"),
        (lambda t: t | {"mean": torch.full((8,), torch.inf)}, r"transform\.mean should be finite"),
        (lambda t: t | {"mean": torch.zeros(9)}, r"mean should be floating numbers of shape \(8,\)"),
        (lambda t: t | {"matrix": torch.eye(9)}, r"matrix should be floating numbers of shape \(8, 8\)"),
        (lambda t: t | {"matrix": torch.eye(8, dtype=torch.int64)}, "found torch.int64"),
        (lambda t: t | {"inverse": "x"}, "found str"),
        (lambda t: {name: value for name, value in t.items() if name != "mean"}, "mean .* found NoneType"),
        (lambda t: t | {"inverse": torch.eye(8)}, r"inverse is not the inverse of transform\.matrix"),
        (lambda t: t | {"inverse": t["inverse"].roll(1, 0)}, "is not the inverse"),
        (lambda t: t | {"matrix": torch.zeros(8, 8), "inverse": torch.zeros(8, 8)}, "is not the inverse"),
        (lambda t: t | {"inverse": t["inverse"] * (1 + 1e-4)}, "is not the inverse"),
    ],
)
def test_a_transform_that_is_none_is_refused(change: Callable[[dict], dict], said: str) -> None:
    """faults.md E2: NaN in a checkpoint's transform made a NaN SAE in silence."""
    with pytest.raises(ValueError, match=said):
        read_transform(change(dict(whitening(8, 10.0).named_buffers())), 8, SOURCE)


def test_one_wrong_weight_file_in_a_folder_of_ours_is_found(tmp_path: Path) -> None:
    """Two runs' folders mixed up: sizes agree, the weights do not."""
    for name in ("a", "b"):
        save_sae(ThresholdSAE(5, 7), tmp_path / name, {})
    weights = "sae_weights.safetensors"
    (tmp_path / "a" / weights).write_bytes((tmp_path / "b" / weights).read_bytes())
    assert load_file(tmp_path / "a" / weights)
    with pytest.raises(ValueError, match="SHA-256 is not the one in SHA256SUMS"):
        load_sae(tmp_path / "a")
