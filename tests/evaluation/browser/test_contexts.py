"""Firings, entropies, logit effects, nearest atoms and eai-delphi's format against brute force."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import entropy

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.contexts import firing, whole_sequences
from atomlab.evaluation.browser.data import nearest_atoms
from atomlab.evaluation.browser.delphi import export_delphi
from atomlab.evaluation.browser.logits import logit_effects
from atomlab.evaluation.browser.monosemanticity import conditional_entropy, context_agreement, monosemanticity
from atomlab.evaluation.browser.pages import some
from atomlab.theory import AtomicInnerProduct
from atomlab.units import Unit


def unit(d_in: int, d_sae: int = 10) -> Unit:
    weights = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(0))
    weights[4] = 0  # never fires
    return Unit("test", weights, torch.zeros(d_in), lambda x: (x @ weights.T - 1).clamp(min=0), signed=False)


def test_firings_are_those_of_dense_codes(data_of: Callable[..., ActivationDataModule]) -> None:
    data = data_of()
    rows = data.rows["test"]
    found = firing(unit(data.d_in), rows, 150, contexts=4, batch=37)
    codes = unit(data.d_in).encode(rows[found.rows])
    assert torch.equal(found.counts, (codes > 0).sum(0))
    assert found.counts[4] == 0
    expected = codes.topk(4, dim=0).values
    torch.testing.assert_close(found.top_values, expected)
    for k, j in (found.top_values > 0).nonzero().tolist():
        assert codes[found.top_rows[k, j], j] == found.top_values[k, j]
    dense = torch.zeros_like(codes)
    dense[found.sample, found.atom] = found.value
    assert torch.equal(dense, codes)


def test_rows_come_in_whole_sequences(data_of: Callable[..., ActivationDataModule]) -> None:
    rows = data_of().rows["test"]
    sequences = rows.store.origins.sequences
    token = sequences.keep.nonzero().squeeze(1)[rows.numbers]
    of = torch.searchsorted(sequences.offsets, token, right=True) - 1
    chosen = whole_sequences(rows, 100)
    assert 0 < len(chosen) <= 100
    assert torch.equal(torch.isin(of, of[chosen]).nonzero().squeeze(1), chosen)
    assert torch.equal(whole_sequences(rows, 10**9), torch.arange(len(rows)))
    assert len(whole_sequences(rows, 1)) >= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60))
def test_entropy_is_scipys(pairs: list[tuple[int, int]]) -> None:
    atom, label = torch.tensor(pairs).T
    found = conditional_entropy(atom, label, 5)
    for j in range(5):
        counts = torch.bincount(label[atom == j], minlength=6).numpy()
        if counts.sum():
            assert float(found[j]) == pytest.approx(entropy(counts, base=2), abs=1e-9)
        else:
            assert found[j].isnan()


def test_an_atom_of_one_token_has_no_entropy_and_its_null_has(data_of: Callable[..., ActivationDataModule]) -> None:
    rows = data_of().rows["test"]
    token = rows.origin(torch.arange(len(rows))).token_id
    d_in = rows.store.width
    found = firing(unit(d_in), rows, 10**9, 2, 64)
    places = torch.isin(token, token.unique(return_counts=True)[0][:1]).nonzero().squeeze(1)
    own = type(found)(**(vars(found) | {"atom": torch.zeros_like(places), "place": places, "value": places.float()}))
    measured = monosemanticity(own, token, token)
    assert float(measured.token_entropy[0]) == pytest.approx(0, abs=1e-12)
    assert float(measured.token_entropy_null[0]) > 1


def test_context_agreement_is_the_mean_cosine_of_pairs() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = context_agreement([["a", "b", "c"], ["d"], ["e"]], lambda texts: vectors[: len(texts)])
    pairs = [float(vectors[i] @ vectors[j]) for i in range(3) for j in range(i)]
    assert found[0] == pytest.approx(sum(pairs) / 3, abs=1e-6)
    assert all(value != value for value in found[1:])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logit_effects_are_the_unembedding_of_the_normed_direction(
    data_of: Callable[..., ActivationDataModule], family: str
) -> None:
    data = data_of(family)
    model = data.model.load()
    atoms = torch.randn(7, data.d_in, generator=torch.Generator().manual_seed(1))
    up, up_ids, down, down_ids = logit_effects(model, atoms, 3, block=2)
    head = model.get_output_embeddings().weight
    if family == "llama":
        direction = model.model.norm.weight * atoms / atoms.square().mean(1, keepdim=True).add(1e-6).sqrt()
    else:
        centred = atoms - atoms.mean(1, keepdim=True)
        direction = model.transformer.ln_f.weight * centred / centred.square().mean(1, keepdim=True).add(1e-5).sqrt()
    effect = direction @ head.T
    effect -= effect.mean(1, keepdim=True)
    for values, ids, largest in ((up, up_ids, True), (down, down_ids, False)):
        best = effect.topk(3, dim=1, largest=largest)
        torch.testing.assert_close(values, best.values, atol=1e-4, rtol=1e-4)
        assert torch.equal(ids, best.indices)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_atoms_length_does_not_change_its_logit_effects(
    data_of: Callable[..., ActivationDataModule], family: str
) -> None:
    """faults.md D10: the ε of the final norm shrank the effects of short atoms; of an atom of length 1e-3 to a fifth."""
    data = data_of(family)
    model = data.model.load()
    atoms = torch.randn(7, data.d_in, generator=torch.Generator().manual_seed(1))
    expected = logit_effects(model, atoms, 3)
    for scale in (2.0**-20, 1e-3, 17.0):
        for found, own in zip(logit_effects(model, atoms * scale, 3), expected, strict=True):
            if own.dtype == torch.int64:
                assert torch.equal(found, own)
            else:  # two roundings of an atom, and the sums of a norm and of a product over d_in entries
                torch.testing.assert_close(found, own, rtol=4 * data.d_in * 2.0**-23, atol=1e-6)
    zero = logit_effects(model, torch.zeros(1, data.d_in), 3)
    assert torch.equal(zero[0], torch.zeros(1, 3))


def test_agreement_is_of_atoms_drawn_at_random() -> None:
    """Of the kind of faults.md D8: it was of the first 500 atoms, and released SAEs may be sorted by how often they fire."""
    groups = [[str(number)] for number in range(10_000)]
    drawn = [int(text) for (text,) in some(groups, 500, torch.Generator().manual_seed(0))]
    assert len(set(drawn)) == 500
    assert abs(sum(drawn) / 500 / 10_000 - 0.5) < 5 * math.sqrt(1 / 12 / 500)
    assert some(groups[:3], 500, torch.Generator()) == groups[:3]


def test_nearest_atoms_are_those_of_the_whole_gram_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(30, 6, generator=generator)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    metric = AtomicInnerProduct(root @ root.T + torch.eye(6))
    values, numbers = nearest_atoms(atoms, metric, 3, block=7)
    gram = torch.stack([metric.cosine(atom.expand_as(atoms), atoms) for atom in atoms])
    magnitude = gram.abs().fill_diagonal_(-1)
    assert torch.equal(numbers, magnitude.topk(3, dim=1).indices)
    torch.testing.assert_close(values, gram.gather(1, numbers), atol=1e-5, rtol=1e-4)


def test_the_delphi_export_is_what_delphi_itself_writes(
    data_of: Callable[..., ActivationDataModule], tmp_path: Path
) -> None:
    """tests/evaluation/delphi/0_9.safetensors: eai-delphi 0.1.3's LatentCache.save_splits on the same dense codes of the
    same sequences. It keeps half precision and 16 bits; its LatentDataset reads either, and was read from this export
    once: a record for each of the nine atoms that fire, with these places and tokens.
    """
    data = data_of()
    export_delphi(firing(unit(data.d_in), data.rows["test"], 200, 2, 64), data.rows["test"], tmp_path, "l", "tiny", 0)
    ours = load_file(tmp_path / "l" / "0_9.safetensors")
    theirs = load_file(Path(__file__).parent / "delphi" / "0_9.safetensors")
    assert torch.equal(ours["tokens"], theirs["tokens"])
    assert torch.equal(ours["locations"], theirs["locations"].long())
    torch.testing.assert_close(ours["activations"], theirs["activations"].float(), rtol=2**-10, atol=1e-5)


def test_delphi_finds_each_firing_at_its_token(data_of: Callable[..., ActivationDataModule], tmp_path: Path) -> None:
    data = data_of()
    rows = data.rows["test"]
    found = firing(unit(data.d_in), rows, 200, 2, 64)
    export_delphi(found, rows, tmp_path, "layers.1", "tiny", pad=0)
    saved = load_file(tmp_path / "layers.1" / "0_9.safetensors")
    config = json.loads((tmp_path / "layers.1" / "config.json").read_text())
    assert config["model_name"] == "tiny"
    assert saved["tokens"].shape[1] % 32 == 0
    sequence, position, atom = saved["locations"].T
    tokens = rows.origin(found.rows).token_id
    assert torch.equal(saved["tokens"][sequence, position], tokens[found.sample].long())
    assert torch.equal(atom, found.atom)
    assert torch.equal(saved["activations"], found.value)
