"""In every layout a tensor that is missing, of another shape or with its sides swapped is refused in one sentence, which
names the file, the key, what was found and what was expected.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atomlab import load_sae
from atomlab.interop import find_sae
from tests.interop import layouts
from tests.interop.layouts import LAYOUTS, P, into

Tensors = dict[str, Tensor]
DECODERS = ("W_dec", "W_D", "decoder.weight", "decoder_linear.weight")
ENCODERS = ("W_enc", "W_E", "encoder.weight", "encoder_linear.weight")
# What a class has and its codes do not need.
UNNEEDED = {
    "dictionary_learning TopK": {"threshold"},
    "dictionary_learning BatchTopK": {"k"},
    "dictionary_learning Matryoshka": {"k", "group_sizes"},
    "dictionary_learning backup": {"k"},
    "OpenAI": {"stats_last_nonzero"},
}
# Tensors that have two names; the message has the first.
ALSO = {"log_threshold": "threshold", "log_jumprelu_threshold": "activation_function.log_jumprelu_threshold"}


def changed(place: Path, change: Callable[[Tensors], object]) -> str:
    """Changes the tensors in the file of an SAE; returns the file's name."""
    file = find_sae(place).file
    if file.suffix == ".npz":
        with np.load(file) as archive:
            tensors = {key: torch.from_numpy(archive[key]) for key in archive.files}
        change(tensors)
        np.savez(file, **{key: value.numpy() for key, value in tensors.items()})  # type: ignore[arg-type]
    elif file.suffix == ".safetensors":
        tensors = load_file(file)
        change(tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    else:
        content = torch.load(file, weights_only=True)
        change(content.get("ae", content))
        torch.save(content, file)
    return file.name


def keys_of(place: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    changed(
        place, lambda tensors: shapes.update({k: tuple(v.shape) for k, v in tensors.items() if isinstance(v, Tensor)})
    )
    return shapes


def refused(place: Path) -> str:
    with pytest.raises(ValueError, match="found") as error:
        load_sae(place)
    assert "\n" not in str(error.value)
    return str(error.value)


def of(keys: tuple[str, ...], found: Iterable[str]) -> str:
    return next(key for key in found if key.lower() in [name.lower() for name in keys])


def test_every_layout_is_written_again_as_it_was(tmp_path: Path) -> None:
    """Or the tests below would see damage of their own making."""
    for name in LAYOUTS:
        place = LAYOUTS[name].write(tmp_path / name)
        before = load_sae(place).state_dict()
        changed(place, lambda tensors: None)
        assert all(torch.equal(value, before[key]) for key, value in load_sae(place).state_dict().items())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tensor_that_is_missing(tmp_path: Path, name: str) -> None:
    for number, key in enumerate(keys_of(LAYOUTS[name].write(tmp_path / "whole")).keys() - UNNEEDED.get(name, set())):
        place = LAYOUTS[name].write(tmp_path / str(number))
        file = changed(place, lambda tensors, key=key: tensors.pop(key))
        said = refused(place)
        assert file in said
        assert f" {ALSO.get(key, key)}" in said
        assert "expected" in said


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tensor_of_another_shape(tmp_path: Path, name: str) -> None:
    """The odd one out is blamed: what most others say is expected."""
    shapes = keys_of(LAYOUTS[name].write(tmp_path / "whole"))
    for key, shape in shapes.items():
        for side in range(len(shape) if key not in ("group_sizes", "stats_last_nonzero") else 0):
            larger = tuple(size + (number == side) for number, size in enumerate(shape))
            place = LAYOUTS[name].write(tmp_path / f"{key}-{side}")
            file = changed(place, lambda tensors, key=key, larger=larger: tensors.update({key: torch.ones(larger)}))
            assert (
                f"{file}: {key} should be floating numbers of shape {shape}, found torch.float32 of shape {larger}"
                in (refused(place))
            )


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_matrix_with_its_sides_swapped(tmp_path: Path, name: str) -> None:
    """The decoder, the encoder, or both: vectors have no sides, so that even then they tell."""
    shapes = keys_of(LAYOUTS[name].write(tmp_path / "whole"))
    encoder, decoder = of(ENCODERS, shapes), of(DECODERS, shapes)
    for keys in ((decoder,), (encoder,), (decoder, encoder)):
        place = LAYOUTS[name].write(tmp_path / "-".join(keys))
        file = changed(place, lambda tensors, keys=keys: tensors.update({k: tensors[k].T.contiguous() for k in keys}))
        said = refused(place)
        assert any(
            f"{file}: {key} should be floating numbers of shape {shapes[key]}, found torch.float32 of shape "
            f"{shapes[key][::-1]}: its sides are swapped" in said
            for key in keys
        )


def test_a_file_that_is_of_no_format_says_what_it_holds(tmp_path: Path) -> None:
    into(tmp_path, x__pt={"layer.weight": torch.ones(2, 3)}, y__safetensors={"other": torch.ones(4)})
    for name, found in (("x.pt", r"layer\.weight \(2, 3\)"), ("y.safetensors", r"other \(4,\)")):
        with pytest.raises(
            FileNotFoundError, match=rf"{name} holds no SAE of a known format \(found {found}\): expected"
        ):
            load_sae(tmp_path / name)


def test_a_folder_of_several_saes_names_some(tmp_path: Path) -> None:
    """The layers of circuit-tracer, also where they are transcoders, and a run of sparsify."""
    tracer = {"W_enc": P["W_enc"].T.contiguous(), "W_dec": P["W_dec"], "b_enc": P["b_enc"], "b_dec": P["b_dec"]}
    layers = {f"layer_{layer}__safetensors": tracer for layer in range(4)}
    into(tmp_path / "plt", config__yaml={"feature_input_hook": "a", "feature_output_hook": "b"}, **layers)
    into(tmp_path / "layers", config__yaml=layouts._ONE_SITE | {"activation": "relu"}, **layers)
    for folder in ("plt", "layers"):
        with pytest.raises(
            ValueError, match=r"is no SAE and holds what may be .* such as \S+/layer_0\.safetensors, \S+/layer_1"
        ):
            load_sae(tmp_path / folder)
    load_sae(tmp_path / "layers" / "layer_2.safetensors")
    LAYOUTS["sparsify"].write(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run is no SAE and .* such as \S+/run/layers\.10\.$"):
        load_sae(tmp_path / "run")


@pytest.mark.parametrize("missing", ["cfg.json", "sae_weights.safetensors"])
def test_half_of_a_saelens_folder_says_which_half(tmp_path: Path, missing: str) -> None:
    folder = LAYOUTS["SAELens jumprelu"].write(tmp_path / "there")
    (folder / missing).unlink()
    (other,) = (file.name for file in folder.iterdir())
    with pytest.raises(FileNotFoundError, match=rf"there has no {missing}: expected both .* found {other}"):
        load_sae(folder)
