"""Packed documents see nothing of one another in the models that are said to keep them apart."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from atomlab.activations.model.capture import capture
from atomlab.activations.model.language_model import SEPARATES_DOCUMENTS, LanguageModel
from atomlab.activations.model.sites import resolve_site
from atomlab.activations.tokens.sequences import Frame, batch, pack_apart


@pytest.mark.parametrize("family", sorted(SEPARATES_DOCUMENTS))
def test_each_part_of_a_document_is_as_if_alone(families: dict[str, Path], family: str) -> None:
    """Contexts of 24 tokens in one batch, with 2 to 4 documents each, against every part run by itself."""
    lm = LanguageModel(str(families[family]), dtype="float32", device="cpu")
    assert lm.family == family
    model, generator = lm.load(), torch.Generator().manual_seed(0)
    points = [resolve_site(site, 2, lm.family, lm.num_layers) for site in ("resid_post", "attn_out")]
    lengths = [5, 9, 17, 3, 30, 8, 11, 13]
    documents = [torch.randint(3, 64, (n,), generator=generator, dtype=torch.int32) for n in lengths]
    packed = pack_apart(documents, list(range(len(documents))), 24, Frame((1,), (), ()))
    made = batch(packed, 0, len(packed.lengths))
    assert made.inputs["input_ids"].shape == (4, 24)
    together = capture(model, points, made.inputs)
    mixed = capture(model, points, {"input_ids": made.inputs["input_ids"]})
    starts = [*(packed.position == 0).nonzero().squeeze(1).tolist(), packed.position.numel()]
    assert len(starts) - 1 > 8
    differs = 0
    for start, stop in pairwise(starts):
        alone = capture(model, points, {"input_ids": packed.input_ids[None, start:stop].long()})
        for point in points:
            expected = alone[point][0]
            torch.testing.assert_close(together[point].flatten(0, 1)[start:stop], expected, rtol=1e-4, atol=1e-5)
            differs += not torch.allclose(mixed[point].flatten(0, 1)[start:stop], expected, rtol=1e-2, atol=1e-2)
    assert differs >= 8  # without positions that start anew they do see one another
