"""The agreement of an atom's contexts, and the texts that it is measured on."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.language_model import LanguageModel
from atomlab.evaluation.browser.context_similarity import (
    context_agreement,
    context_texts,
    sample_groups,
    sentence_embedder,
)
from atomlab.evaluation.browser.firings import AFTER, BEFORE, find_firings
from tests.evaluation.browser.units import unit
from tests.tiny import WORDS, tokenizer


def test_context_agreement_is_the_mean_cosine_of_pairs() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = context_agreement([["a", "b", "c"], ["d"], ["e", "f"], []], lambda texts: vectors[: len(texts)])
    pairs = [float(vectors[i] @ vectors[j]) for i in range(3) for j in range(i)]
    assert found[0] == pytest.approx(sum(pairs) / 3, abs=1e-6)
    assert found[2] == pytest.approx(float(vectors[4] @ vectors[5]), abs=1e-6)
    assert math.isnan(found[1])
    assert math.isnan(found[3])


def test_agreement_is_of_atoms_drawn_at_random() -> None:
    """Of the kind of faults.md D8: it was of the first 500 atoms, and released SAEs may be sorted by how often they fire."""
    groups = [[str(number)] for number in range(10_000)]
    drawn = [int(text) for (text,) in sample_groups(groups, 500, torch.Generator().manual_seed(0))]
    assert len(set(drawn)) == 500
    assert abs(sum(drawn) / 500 / 10_000 - 0.5) < 5 * math.sqrt(1 / 12 / 500)
    assert sample_groups(groups[:3], 500, torch.Generator()) == groups[:3]


def test_the_texts_of_an_atom_are_around_its_strongest_firings_and_do_not_overlap(
    data_of: Callable[..., ActivationDataModule],
) -> None:
    data = data_of()
    rows, words = data.rows["test"], data.model.tokenizer
    firings = find_firings(unit(data.d_in), rows, 300, contexts=12, batch=64)
    expected, left_out = [], 0
    for j in range(10):
        kept: list[tuple[int, int]] = []
        for value, sample in zip(firings.top_values[:, j].tolist(), firings.top_samples[:, j].tolist(), strict=True):
            number = firings.rows[sample : sample + 1]
            place = (int(number), int(rows.origin(number).document))
            if value > 0 and all(abs(place[0] - a) > BEFORE + AFTER or place[1] != b for a, b in kept):
                kept.append(place)
            else:
                left_out += 1
        around = rows.contexts(torch.tensor([number for number, _ in kept], dtype=torch.int64), BEFORE, AFTER)
        if len(kept) >= 2:
            expected.append([words.decode(ids) for ids, _ in around])
    assert left_out
    assert context_texts(firings, rows, words) == expected


def test_an_embedding_is_the_mean_over_a_texts_own_tokens(tmp_path: Path) -> None:
    """Padding to the longest text of a batch enters no mean, and batches do not change the result."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, pad_token_id=3,
    )  # fmt: skip
    bert = BertModel(config)
    bert.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    texts = [" ".join(WORDS[start : start + length]) for start, length in ((0, 9), (20, 2), (40, 5), (3, 1))]
    found = sentence_embedder(LanguageModel(str(tmp_path), dtype="float32", device="cpu"), batch=3)(texts)
    with torch.no_grad():
        means = [bert.eval()(**tokenizer()(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    expected = torch.stack([mean / mean.norm() for mean in means])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
