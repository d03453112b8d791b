"""The export in eai-delphi's cache format."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser import delphi
from atomlab.evaluation.browser.delphi import export_delphi
from atomlab.evaluation.browser.firings import find_firings
from tests.evaluation.browser.units import unit

Data = Callable[..., ActivationDataModule]


def test_the_export_is_what_delphi_itself_writes(data_of: Data, tmp_path: Path) -> None:
    """delphi/0_9.safetensors: eai-delphi 0.1.3's LatentCache.save_splits on the same dense codes of the same sequences. It
    keeps half precision and 16 bits; its LatentDataset reads either, and was read from this export once: a record for each
    of the nine atoms that fire, with these places and tokens.
    """
    rows = data_of().rows["test"]
    export_delphi(find_firings(unit(rows.shape[1]), rows, 200, 2, 64), rows, tmp_path, "l", "tiny", 0)
    ours = load_file(tmp_path / "l" / "0_9.safetensors")
    theirs = load_file(Path(__file__).parent / "delphi" / "0_9.safetensors")
    assert torch.equal(ours["tokens"], theirs["tokens"])
    assert torch.equal(ours["locations"], theirs["locations"].long())
    torch.testing.assert_close(ours["activations"], theirs["activations"].float(), rtol=2**-10, atol=1e-5)


def test_each_firing_stands_at_its_token_in_whichever_file(data_of: Data, tmp_path: Path, monkeypatch) -> None:
    """Ten latents in files of four: latents count from the first of their file."""
    monkeypatch.setattr(delphi, "_LATENTS_A_FILE", 4)
    rows = data_of().rows["test"]
    found = find_firings(unit(rows.shape[1]), rows, 200, 2, 64)
    export_delphi(found, rows, tmp_path, "layers.1", "tiny", pad=0)
    config = json.loads((tmp_path / "layers.1" / "config.json").read_text())
    assert (config["model_name"], config["n_splits"]) == ("tiny", 3)
    tokens = rows.origin(found.rows).token_id
    for first, last in ((0, 3), (4, 7), (8, 9)):
        saved = load_file(tmp_path / "layers.1" / f"{first}_{last}.safetensors")
        assert list(saved["tokens"].shape) == [config["n_tokens"] // config["ctx_len"], config["ctx_len"]]
        assert config["ctx_len"] % 32 == 0
        sequence, position, atom = saved["locations"].T
        mine = (found.atom >= first) & (found.atom <= last)
        assert torch.equal(saved["tokens"][sequence, position], tokens[found.sample[mine]].long())
        assert torch.equal(atom + first, found.atom[mine])
        assert torch.equal(saved["activations"], found.value[mine])
