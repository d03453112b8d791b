"""The real sparsify's files: the decoder has atoms as rows."""

import os
from pathlib import Path

import pytest
import torch

from atomlab import load_sae

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # asked for at the import; its decoder needs a GPU otherwise
from sparsify import SparseCoder, SparseCoderConfig


@pytest.mark.parametrize("normalised", [False, True])
def test_what_sparsify_saves_atomlab_reads(tmp_path: Path, normalised: bool) -> None:
    torch.manual_seed(0)
    theirs = SparseCoder(12, SparseCoderConfig(num_latents=40, k=6, normalize_decoder=normalised))
    with torch.no_grad():
        theirs.b_dec.normal_()
        theirs.encoder.bias.normal_()
        theirs.W_dec += 0.1 * torch.randn_like(theirs.W_dec)
    theirs.save_to_disk(tmp_path / "layers.3")
    ours, x = load_sae(tmp_path / "layers.3"), torch.randn(300, 12)
    found = theirs.encode(x)
    codes = torch.zeros(300, 40).scatter(1, found.top_indices, found.top_acts)
    torch.testing.assert_close(ours.encode(x), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs.decode(found.top_acts, found.top_indices), rtol=1e-5, atol=1e-5)
    again = SparseCoder.load_from_disk(tmp_path / "layers.3")
    torch.testing.assert_close(again.W_dec, ours.W_dec)


def test_a_transcoder_of_sparsify_is_refused(tmp_path: Path) -> None:
    SparseCoder(12, SparseCoderConfig(num_latents=40, k=6, transcode=True)).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match="a sparsify folder with a transcoder"):
        load_sae(tmp_path)
