"""Every format of the field against its own formula, from files written to the published shapes."""

# ruff: noqa: E501 (a table, whose lines may run over)
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from atomlab import ThresholdSAE, load_sae
from atomlab.interop import find_sae
from atomlab.sae import BaselineSAE, TopK
from atomlab.units import atoms
from tests.interop import layouts
from tests.interop.layouts import LAYOUTS, P, X, into, learning, saelens, t


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_computes_what_its_format_says(tmp_path: Path, name: str) -> None:
    """Codes and reconstructions, as `encode` and `forward` and as a row of a table has them."""
    layout = LAYOUTS[name]
    sae = load_sae(str(layout.write(tmp_path / "there")))
    torch.testing.assert_close(sae.encode(X), layout.codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(X), layout.x_hat, rtol=1e-5, atol=1e-5)
    unit = atoms(sae)
    torch.testing.assert_close(unit.encode(X).to_dense(), layout.codes, rtol=1e-5, atol=1e-5)
    assert isinstance(sae, BaselineSAE if "topk" in name.lower().split() or layout.format in _TOP_K else ThresholdSAE)


_TOP_K = ("sparsify", "Qwen Scope")


@pytest.mark.parametrize("name", LAYOUTS)
def test_model_site_and_format_are_known_before_the_weights_are_read(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    found = find_sae(layout.write(tmp_path / "there"))
    assert (found.origin.format, found.origin.model, found.origin.site) == (layout.format, layout.model, layout.site)
    assert found.read().origin == found.origin


def test_a_link_to_a_folder_says_what_the_folder_says(tmp_path: Path) -> None:
    for name in ("Gemma Scope", "Gemma Scope, embedding", "Gemma Scope 2", "sparsify", "Qwen Scope"):
        place = LAYOUTS[name].write(tmp_path / name)
        folder = place if place.is_dir() else place.parent
        (tmp_path / "mine").symlink_to(folder)
        linked = find_sae(tmp_path / "mine" if place.is_dir() else tmp_path / "mine" / place.name).origin
        assert linked == find_sae(place).origin
        (tmp_path / "mine").unlink()
        store = tmp_path / "store"
        folder.rename(store)  # and a link that is named so to one that is not
        folder.symlink_to(store)
        assert find_sae(place).origin == linked
        folder.unlink()
        store.rename(folder)


@pytest.mark.parametrize(
    ("folder", "refused"),
    [
        ("gemma-scope-2b-pt-transcoders/layer_3", True),
        ("models--google--gemma-scope-2b-pt-transcoders/snapshots/a/layer_3", True),
        ("my-transcoders/layer_3", True),
        ("transcoder_all/layer_3_width_16k", True),
        ("transcoder-study/gemma-scope-2b-pt-res/layer_3", False),
        ("transcoder-study/res/layer_3", False),
        ("transcoding/layer_3", False),
    ],
)
def test_a_transcoder_of_gemma_scope_is_known_by_the_name_that_is_nearest(folder: str, refused: bool) -> None:
    with TemporaryDirectory() as place:  # the name of a test's own folder would count
        archive = into(Path(place) / folder, params__npz=P)
        if refused:
            with pytest.raises(ValueError, match="a Gemma Scope archive with a transcoder"):
                load_sae(archive)
        else:
            load_sae(archive)


def test_a_configuration_of_gemma_scope_2_says_more_than_its_folder(tmp_path: Path) -> None:
    weights = {name.lower(): value for name, value in P.items()}
    sites = {"hf_hook_point_in": "model.layers.3.output", "hf_hook_point_out": "model.layers.3.output"}
    folder = into(tmp_path / "clt-study", config__json=sites, params__safetensors=weights)
    assert find_sae(folder).origin.site == "model.layers.3.output"
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="a Gemma Scope 2 folder with a transcoder"):
        load_sae(folder)


def test_what_a_sae_was_trained_on_is_carried_over(tmp_path: Path) -> None:
    scaled = load_sae(LAYOUTS["Llamascopium"].write(tmp_path / "a")).origin
    assert scaled is not None
    assert scaled.normalisation == f"inputs times {layouts.S:g}, folded into the weights"
    sparsify = load_sae(LAYOUTS["sparsify"].write(tmp_path / "b")).origin
    assert sparsify is not None
    assert (sparsify.architecture, sparsify.details) == ("TopK, k=3", {"context_size": 2048, "dataset_path": "text"})


def test_any_file_of_a_folder_means_the_folder(tmp_path: Path) -> None:
    for name, files in {
        "SAELens jumprelu": ("cfg.json", "sae_weights.safetensors"),
        "Gemma Scope 2": ("config.json", "params.safetensors"),
        "sparsify": ("cfg.json", "sae.safetensors"),
        "dictionary_learning BatchTopK": ("config.json", "ae.pt"),
        "Llamascopium": ("config.json", "lm_config.json", "sae_weights.safetensors"),
        "Llama Scope": ("hyperparams.json", "checkpoints/final.safetensors"),
    }.items():
        folder = LAYOUTS[name].write(tmp_path / name)
        for file in files:
            torch.testing.assert_close(load_sae(folder / file).encode(X), LAYOUTS[name].codes, rtol=1e-5, atol=1e-5)


def test_the_k_of_a_topk_is_read(tmp_path: Path) -> None:
    for name in ("SAELens topk", "sparsify", "Qwen Scope", "dictionary_learning TopK", "circuit-tracer TopK"):
        sae = load_sae(LAYOUTS[name].write(tmp_path / name))
        assert isinstance(sae, BaselineSAE)
        assert isinstance(sae.activation, TopK)
        assert int(sae.activation.k) == layouts.K


def test_reading_draws_no_random_numbers(tmp_path: Path) -> None:
    folders = [LAYOUTS[name].write(tmp_path / name) for name in ("SAELens jumprelu", "SAELens topk")]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for folder in folders:
        load_sae(folder)
    assert torch.equal(torch.rand(4), expected)


def test_a_loaded_sae_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """Weights of a memory-mapped file would change with it, and end the process if it is cut off."""
    for name in ("SAELens jumprelu", "dictionary_learning JumpRelu", "Gemma Scope"):
        folder = LAYOUTS[name].write(tmp_path / name)
        sae = load_sae(folder)
        weights = next(file for file in folder.iterdir() if file.suffix in (".safetensors", ".pt", ".npz"))
        with weights.open("r+b") as stream:
            stream.truncate(10)
        torch.testing.assert_close(sae.encode(X), LAYOUTS[name].codes, rtol=1e-5, atol=1e-5)


class Harmful:
    """An object whose pickle runs code when it is read."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return Path.touch, (Path("it-ran"),)  # type: ignore[return-value]


_SPARSIFY = {"d_in": 5, "k": 3, "num_latents": 7}
_LEARNED: dict[str, object] = dict(layouts._TOP)
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a transcoder of SAELens": (
        lambda p: saelens(p, "jumprelu_transcoder", P, d_out=5), "a SAELens folder with a transcoder"
    ),
    "a transcoder of Gemma Scope": (
        lambda p: into(p / "gemma-scope-2b-pt-transcoders" / "layer_3", params__npz=P), "a Gemma Scope archive with a transcoder"
    ),
    "a transcoder of Gemma Scope 2": (
        lambda p: into(
            p, config__json={"hf_hook_point_in": "a.output", "hf_hook_point_out": "b.output"},
            params__safetensors={name.lower(): value for name, value in P.items()},
        ),
        r"transcoder, which reads a\.output and reconstructs b\.output",
    ),
    "a transcoder of sparsify": (
        lambda p: into(p, cfg__json=_SPARSIFY | {"transcode": True}, sae__safetensors=layouts._SPARSIFY),
        "a sparsify folder with a transcoder",
    ),
    "a transcoder of Llamascopium": (
        lambda p: into(p, config__json={"hook_point_in": "a", "hook_point_out": "b"}, sae_weights__safetensors=layouts._LLAMA),
        "transcoder, which reads a and reconstructs b",
    ),
    "a transcoder of circuit-tracer": (
        lambda p: into(
            p, config__yaml=layouts._ONE_SITE, layer_3__safetensors=layouts._TRACER | {"W_skip": torch.eye(5)}
        ),
        "circuit-tracer file with a transcoder",
    ),
    "a circuit-tracer file that names no site": (
        lambda p: into(p, layer_3__safetensors=layouts._TRACER | {"k": torch.tensor(3)}) / "layer_3.safetensors",
        r"layer_3\.safetensors has the tensors of a circuit-tracer file, nearly all .* config\.yaml beside it is missing",
    ),
    "a circuit-tracer file that names one site": (
        lambda p: into(p, config__yaml={"feature_input_hook": "a"}, layer_3__safetensors=layouts._TRACER) / "layer_3.safetensors",
        r"config\.yaml beside it names no two sites: if it reconstructs what it reads, write that site into",
    ),
    "a circuit-tracer file that may be of any activation": (
        lambda p: into(p, config__yaml=layouts._ONE_SITE, layer_3__safetensors=layouts._TRACER) / "layer_3.safetensors",
        r"has no k and no activation_function\.threshold, and .*config\.yaml has activation=None: expected one of",
    ),
    "groups of sparsify": (
        lambda p: into(p, cfg__json=_SPARSIFY | {"activation": "groupmax"}, sae__safetensors=layouts._SPARSIFY),
        "the activation 'groupmax'",
    ),
    "a decoder of sparsify with its sides swapped": (
        lambda p: into(p, cfg__json=_SPARSIFY, sae__safetensors=layouts._SPARSIFY | {"W_dec": t("W_dec")}),
        r"sae\.safetensors: W_dec should be .* of shape \(7, 5\), found .* of shape \(5, 7\): its sides are swapped",
    ),
    "an encoder of sparsify with its sides swapped": (
        lambda p: into(p, cfg__json=_SPARSIFY, sae__safetensors=layouts._SPARSIFY | {"encoder.weight": P["W_enc"]}),
        r"encoder\.weight should be floating numbers of shape \(7, 5\), found torch.float32 of shape \(5, 7\)",
    ),
    "a configuration of other sizes": (
        lambda p: into(p, cfg__json=_SPARSIFY | {"num_latents": 8}, sae__safetensors=layouts._SPARSIFY),
        r"has d_sae=8, and W_dec is of shape \(7, 5\)",
    ),
    "no k": (
        lambda p: into(p, cfg__json={"d_in": 5}, sae__safetensors=layouts._SPARSIFY), r"cfg\.json has k=None: expected a number"
    ),
    "a k above the number of latents": (
        lambda p: into(p, cfg__json={"d_in": 5, "k": 8}, sae__safetensors=layouts._SPARSIFY), r"cfg\.json: k is 8: expected a number from 1 to 7"
    ),
    "a class of dictionary_learning that nobody knows": (
        lambda p: learning(p, "NewestSAE", dict(P)), "a dictionary_learning folder, trainer class SomeTrainer, with the class NewestSAE"
    ),
    "a BatchTopK that has no threshold yet": (
        lambda p: learning(p, "BatchTopKSAE", _LEARNED | {"threshold": torch.tensor(-1.0)}), r"ae\.pt has threshold=-1: a BatchTopKSAE needs"
    ),
    "keys that are missing": (
        lambda p: learning(p, "AutoEncoder", {key: v for key, v in _LEARNED.items() if key != "encoder.bias"}),
        r"ae\.pt has no bias, encoder\.bias: expected encoder\.weight, encoder\.bias, decoder\.weight, bias",
    ),
    "a pickle that runs code": (
        lambda p: learning(p, "AutoEncoder", {"encoder.weight": Harmful()}), r"ae\.pt holds pickled Python objects"
    ),
    "a plain pickle that runs code": (
        lambda p: p.mkdir() or ((p / "ae.pt").write_bytes(pickle.dumps(Harmful())) and p), r"ae\.pt holds pickled Python objects"  # type: ignore[return-value]
    ),
    "no dictionary": (lambda p: into(p, ae__pt=[1, 2]), "holds a list: expected a dictionary of tensors"),
    "a TopK of OpenAI": (
        lambda p: into(
            p, x__pt={"pre_bias": P["b_dec"], "encoder.weight": t("W_enc"), "latent_bias": P["b_enc"], "decoder.weight": t("W_dec"),
                      "activation": "TopK"},
        ),
        "an OpenAI SAE with the activation TopK",
    ),
    "a Qwen Scope file without its k": (
        lambda p: into(p, layer0__sae__pt={"W_enc": t("W_enc"), "W_dec": t("W_dec"), "b_enc": P["b_enc"], "b_dec": P["b_dec"]}),
        "its path does not say how many latents are kept",
    ),
    "inputs that are scaled one by one": (
        lambda p: into(
            p, config__json={"act_fn": "relu", "norm_activation": "token-wise", "d_model": 5}, sae_weights__safetensors=layouts._LLAMA
        ),
        "norm_activation='token-wise'",
    ),
    "inputs that are scaled by an unknown number": (
        lambda p: saelens(p, "jumprelu", P, normalize_activations="expected_average_only_in"),
        "normalize_activations=expected_average_only_in",
    ),
    "a crosscoder": (
        lambda p: into(p, config__json={"sae_type": "crosscoder"}, sae_weights__safetensors=layouts._LLAMA), "sae_type='crosscoder'"
    ),
    "an array that promises more than there is": (
        lambda p: lying_archive(p), r"params\.npz is no readable \.npz archive \(W_enc\.npy promises"
    ),
}  # fmt: skip


def lying_archive(folder: Path) -> Path:
    """The header of W_enc claims a terabyte."""
    import zipfile

    into(folder, params__npz=P)
    with zipfile.ZipFile(folder / "params.npz") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["W_enc.npy"] = content["W_enc.npy"].replace(b"(5, 7), }          ", b"(500000, 500000), }")
    with zipfile.ZipFile(folder / "params.npz", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write, said = REFUSED[case]
    place = write(tmp_path / "there")
    with pytest.raises(ValueError, match=said) as error:
        load_sae(place)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "it-ran").exists()


def test_a_folder_of_no_known_format_says_what_it_holds(tmp_path: Path) -> None:
    into(tmp_path, model__safetensors={"layer.weight": torch.ones(2, 2)}, notes__json={})
    with pytest.raises(
        FileNotFoundError, match=r"of a known format \(found model\.safetensors, notes\.json\): expected a run's"
    ):
        load_sae(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist: expected a run's folder"):
        load_sae(tmp_path / "nowhere")
