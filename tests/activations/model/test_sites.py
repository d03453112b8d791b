"""Every short site of every family, against what the model itself computes; what is no site is refused."""

from pathlib import Path

import pytest
import torch

from atomlab.activations.model.capture import capture
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import SITES, HookPoint, find_module, resolve_site

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "bert")
IDS = {"input_ids": torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))}


def language_model(folder: Path) -> LanguageModel:
    return LanguageModel(str(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_capture_is_full_capture_at_every_site(families: dict[str, Path], family: str) -> None:
    lm = language_model(families[family])
    points = [resolve_site(site, layer, lm.family, lm.num_layers) for site in SITES for layer in (0, 1)]
    assert {point.num_layers for point in points} == {1, 2}
    full, short = capture(lm.load(), points, IDS), capture(lm.load(points), points, IDS)
    for point in points:
        assert torch.equal(full[point], short[point]), point
        assert full[point].shape[:2] == (2, 9)


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_stream_is_what_the_model_reports(families: dict[str, Path], family: str) -> None:
    lm = language_model(families[family])
    model = lm.load()
    pre, post = (resolve_site(site, 1, lm.family, 3) for site in ("resid_pre", "resid_post"))
    hidden = model(**IDS, output_hidden_states=True).hidden_states
    seen = capture(model, [post, pre], IDS)
    assert torch.equal(seen[pre], hidden[1])
    assert torch.equal(seen[post], hidden[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_times_projection_is_output(families: dict[str, Path], family: str) -> None:
    """mlp_hidden through the down-projection is mlp_out, attn_z through the output projection is attn_out, but for
    Gemma's extra norms.
    """
    lm = language_model(families[family])
    model = lm.load()
    for inside, outside, layer in (("mlp_hidden", "mlp_out", 2), ("attn_z", "attn_out", 1)):
        first, last = (resolve_site(site, layer, lm.family, 3) for site in (inside, outside))
        seen = capture(model, [first, last], IDS)
        projected = find_module(model, first)(seen[first])
        if family.startswith("gemma"):
            projected = find_module(model, last)(projected)
        torch.testing.assert_close(projected, seen[last], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mlp_makes_its_output_of_its_input(families: dict[str, Path], family: str) -> None:
    """mlp_in is what the MLP reads: its module, run again on it, gives mlp_out, but for Gemma's extra norm. BERT's MLP is
    two modules, of which the first gives mlp_hidden.
    """
    lm = language_model(families[family])
    model = lm.load()
    before, after = (
        resolve_site(site, 1, lm.family, 3) for site in ("mlp_in", "mlp_hidden" if family == "bert" else "mlp_out")
    )
    seen = capture(model, [before, after], IDS)
    computed = find_module(model, before)(seen[before])
    if family.startswith("gemma"):
        computed = find_module(model, after)(computed)
    torch.testing.assert_close(computed, seen[after], rtol=0, atol=0)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family != "bert"]
)  # whose norms come after the sums
def test_the_residual_stream_adds_up(families: dict[str, Path], family: str) -> None:
    lm = language_model(families[family])
    points = {site: resolve_site(site, 1, lm.family, 3) for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")}
    seen = capture(lm.load(), list(points.values()), IDS)
    total = seen[points["resid_pre"]] + seen[points["attn_out"]] + seen[points["mlp_out"]]
    torch.testing.assert_close(total, seen[points["resid_post"]], rtol=1e-5, atol=1e-5)


def test_bad_sites_are_named(families: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"layer=99 .* 0 to 2"):
        resolve_site("resid_post", 99, "llama", 3)
    with pytest.raises(ValueError, match="site=foo is unknown"):
        resolve_site("foo", 0, "llama", 3)
    with pytest.raises(ValueError, match="mamba"):
        resolve_site("resid_post", 0, "mamba", 3)
    with pytest.raises(ValueError, match="not of the form"):
        HookPoint.parse("model.layers")
    model = language_model(families["llama"]).load()
    with pytest.raises(ValueError, match=r"model\.layers\.0 has no 'moe' but .*mlp"):
        capture(model, [HookPoint.parse("model.layers.0.moe.output")], IDS)


def test_bad_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.dtype=int8"):
        LanguageModel("m", dtype="int8")
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        _ = LanguageModel(str(tmp_path / "nothing")).config
