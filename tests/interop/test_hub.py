"""SAEs of the hub, against a hub that runs here."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from atomlab import ThresholdSAE, save_sae
from atomlab.interop.hub import HubName
from tests.hub_server import NEW, OLD
from tests.interop.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]


def sae_with(first: float) -> ThresholdSAE:
    sae = ThresholdSAE(4, 6)
    with torch.no_grad():
        sae.W_dec[0, 0] = first
    return sae


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits: in the newer one the first weight is 2."""
    home = tmp_path_factory.mktemp("hub")
    for commit, first in ((OLD, 1.0), (NEW, 2.0)):
        save_sae(sae_with(first), home / commit / "layers" / "one", {"model_name": "gpt2"}, firing_rates=torch.ones(6))
        save_sae(sae_with(first), home / commit / "layers" / "two", {})
        save_sae(sae_with(first), home / commit / "gemma-scope-2b-pt-res" / "layer_3", format="gemma_scope")
        (home / commit / "layers" / "one" / "optimizer.bin").write_bytes(bytes(1000))
        (home / commit / "layers" / "one" / "results.md").write_text("| units | R² |\n|---|---|\n| atoms | 0.8 |\n")
        (home / commit / "notes").mkdir()
        (home / commit / "notes" / "text.txt").write_text("none")
    return home


@pytest.fixture(scope="module")
def names(home: Path) -> dict[str, str]:
    """The name on the hub of an SAE in every layout; folders that are named like repositories are ones."""
    found = {}
    for number, (name, layout) in enumerate(LAYOUTS.items()):
        owner = home / "published" / f"owner{number}"
        place = layout.write(owner if name.startswith(("Gemma Scope,", "Qwen Scope")) else owner / "saes")
        found[name] = str(place.relative_to(home / "published"))
    LlamaConfig(
        hidden_size=4, intermediate_size=4, num_hidden_layers=13, num_attention_heads=1, vocab_size=9
    ).save_pretrained(home / "model")
    return found


@pytest.fixture(scope="module")
def seen(home: Path, names: dict[str, str]) -> dict[str, Any]:
    script = ROOT / "tests" / "interop" / "a_hub.py"
    command = [sys.executable, str(script), str(home), json.dumps(names)]
    found = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_one_sae_is_downloaded_and_nothing_else(seen: dict[str, Any]) -> None:
    assert seen["named"] == ["SAELens", 1.0]
    assert seen["read for one"] == ["layers/one/cfg.json", "layers/one/sae_weights.safetensors"]
    assert seen["archive"] == ["Gemma Scope", 1.0]


def test_a_name_on_the_hub_opens_in_a_notebook(seen: dict[str, Any]) -> None:
    assert seen["opened at"] == "model.layers.12.output"


def test_a_revision_is_what_it_says(seen: dict[str, Any]) -> None:
    assert seen["moved"] == ["SAELens", 2.0]
    assert seen["by commit"] == seen["by commit in the name"] == ["SAELens", 1.0]


def test_what_was_downloaded_is_found_without_a_hub(seen: dict[str, Any]) -> None:
    assert seen["without a hub"] == ["SAELens", 1.0]
    assert "me/unseen is no file or folder here, and the hub could not be reached" in seen["never seen"]


def test_what_the_hub_lacks_is_said(seen: dict[str, Any]) -> None:
    assert "me/saes holds 3 SAEs: name one of them, such as me/saes/gemma-scope-2b-pt-res/layer_3" in seen["several"]
    assert "me/saes has no SAE of a known format in notes" in seen["no SAE"]
    assert "me/saes at revision 'v9' is neither a file or folder here nor" in seen["no revision"]
    assert "me/other is neither a file or folder here nor a repository on the hub" in seen["no repository"]


def test_an_upload_has_the_files_and_a_page(seen: dict[str, Any], home: Path) -> None:
    uploaded, folder = seen["uploaded"], home / OLD / "layers" / "one"
    page = uploaded.pop("the page")
    assert "| atoms | 0.8 |" in page
    assert 'atomlab.load_sae("me/new/a/b")' in page
    assert uploaded.pop("a/b/README.md") == hashlib.sha256(page.encode()).hexdigest()
    assert uploaded == {
        f"a/b/{name}": hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")
    }
    assert seen["uploaded to"].endswith(f"/me/new/commit/{NEW}")


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_on_the_hub_is_what_is_here(seen: dict[str, Any], name: str) -> None:
    """The cache has files as links to blobs, whose paths name neither layer nor site nor number of latents that are kept."""
    layout = LAYOUTS[name]
    *said, wrong = seen[name]
    assert said == [layout.format, layout.model, layout.site]
    assert wrong < 2e-5


@pytest.mark.parametrize("name", ["nowhere", "/a/b", "./a/b", "~/a/b", "a//b", "a b/c", "hf://a"])
def test_only_names_of_repositories_are_looked_for_on_the_hub(name: str) -> None:
    assert HubName.parse(name) is None


def test_a_name_on_the_hub_has_four_parts() -> None:
    assert HubName.parse("hf://a/b@v1/c/d.npz") == HubName("a/b", "c/d.npz", "v1")
    assert HubName.parse("a/b") == HubName("a/b", "", None)
    assert HubName.parse("a/b@v1", "v2") == HubName("a/b", "", "v2")
