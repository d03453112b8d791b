"""What the browser shows of each atom, against the firings, the tokens and the whole Gram matrix."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.decomposition import PCA

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.atom_fields import Measured, atom_browser
from atomlab.evaluation.browser.contexts import (
    QUARTERS,
    RANDOM,
    STRONGEST,
    choose_contexts,
    context_fields,
    firings_by_atom,
)
from atomlab.evaluation.browser.entropies import measure_entropies
from atomlab.evaluation.browser.firings import AFTER, BEFORE, Firings, find_firings
from atomlab.evaluation.browser.logit_effects import LogitEffects
from atomlab.evaluation.browser.neighbours import nearest_atoms, neighbour_maps
from atomlab.evaluation.browser.shown_text import Vocabulary, shown_text
from atomlab.evaluation.browser.telling import telling
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct
from tests.evaluation.browser.units import unit


def random_metric(d_in: int) -> AtomicInnerProduct:
    root = torch.randn(d_in, d_in, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return AtomicInnerProduct(root @ root.T + torch.eye(d_in))


def test_nearest_atoms_are_those_of_the_whole_gram_matrix() -> None:
    atoms = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    metric = random_metric(6)
    values, numbers = nearest_atoms(atoms, metric, 3, block=7)
    gram = torch.stack([metric.cosine(atom.expand_as(atoms), atoms) for atom in atoms])
    magnitude = gram.abs().fill_diagonal_(-1)
    assert torch.equal(numbers, magnitude.topk(3, dim=1).indices)
    torch.testing.assert_close(values, gram.gather(1, numbers), atol=1e-5, rtol=1e-4)


def test_a_map_shows_the_two_directions_in_which_the_neighbours_differ_most() -> None:
    """Against PCA by scikit-learn of the whitened unit atoms; signs of its axes are free."""
    atoms = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    metric = random_metric(6)
    _, numbers = nearest_atoms(atoms, metric, 4)
    places, shares = neighbour_maps(atoms, metric, numbers, block=7)
    white = torch.nn.functional.normalize(metric.whiten(atoms).double(), dim=1)
    for atom in range(20):
        pca = PCA(2).fit(white[[atom, *numbers[atom].tolist()]].numpy())
        expected = torch.from_numpy(pca.transform(white[[atom, *numbers[atom].tolist()]].numpy()))
        torch.testing.assert_close(places[atom].double().abs(), expected.abs(), atol=1e-5, rtol=1e-4)
        assert abs(float(shares[atom]) - pca.explained_variance_ratio_.sum()) < 1e-5


def test_every_field_of_an_atom_is_its_own(data_of: Callable[..., ActivationDataModule]) -> None:
    data = data_of()
    rows, tokenizer, one = data.rows["test"], data.model.tokenizer, unit(data.d_in)
    sae = ThresholdSAE(data.d_in, 10)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(10, data.d_in, generator=torch.Generator().manual_seed(2)))
        sae.threshold.copy_(torch.arange(10) / 8)
    metric = random_metric(data.d_in)
    firings = find_firings(one, rows, 200, contexts=3, batch=64)
    token = rows.origin(firings.rows).token_id
    entropies = measure_entropies(firings, token, rows.origin(firings.rows).document)
    ids = torch.arange(40).reshape(10, 4)
    effects = LogitEffects(ids[:, :2] / 4, ids[:, :2], -ids[:, 2:] / 4, ids[:, 2:])
    found = atom_browser(sae, metric, Measured(firings, entropies, effects), rows, tokenizer, 3, seed=0)

    columns = {column.key: column.values for column in found.columns}
    assert list(columns) == [column.key for column in found.columns]
    codes = one.encode(rows[firings.rows])
    expected = {
        "atom": torch.arange(10),
        "telling": telling(firings, token),
        "rate": (codes > 0).double().mean(0),
        "firings": (codes > 0).sum(0),
        "max": codes.max(0).values,
        "threshold": torch.arange(10) / 8,
        "h_token": entropies.token_entropy,
        "h_token_null": entropies.token_entropy_null,
        "h_doc": entropies.document_entropy,
        "logit": effects.raised[:, 0],
    }
    for key, values in expected.items():  # four digits are shown
        torch.testing.assert_close(
            torch.tensor(columns[key]).double(), values.double(), rtol=5.1e-4, atol=0, equal_nan=True
        )
    assert found.samples == len(firings.rows)

    gram = torch.stack([metric.cosine(atom.expand_as(sae.W_dec), sae.W_dec) for atom in sae.W_dec.detach()])
    for atom, nearest in enumerate(found.nearest):
        order = gram[atom].abs().argsort(descending=True).tolist()
        assert [other for other, _ in nearest] == [other for other in order if other != atom][:8]
        for other, cosine in nearest:
            torch.testing.assert_close(torch.tensor(cosine), gram[atom, other].float(), rtol=5.1e-3, atol=1e-6)
        assert abs(columns["coherence"][atom] - abs(nearest[0][1])) <= 5.1e-3 * abs(nearest[0][1])
        assert len(found.maps[atom]) == 2 * (len(nearest) + 1)

    def texts(numbers: list[int]) -> list[str]:
        return [found.vocabulary[number] for number in numbers]

    for atom in range(10):
        given = (effects.raised_ids, effects.raised), (effects.lowered_ids, effects.lowered)
        for shown, (ids_of, values) in zip((found.raised[atom], found.lowered[atom]), given, strict=True):
            assert shown is not None
            assert texts([number for number, _ in shown]) == [
                f" {tokenizer.decode([i])}" for i in ids_of[atom].tolist()
            ]
            assert [value for _, value in shown] == [float(f"{value:.3g}") for value in values[atom].tolist()]
        fired = codes[:, atom][codes[:, atom] > 0]
        bins = torch.histc(fired / fired.max(), 20, 0, 1).long().tolist() if len(fired) else [0] * 20
        assert found.histograms[atom] == bins
    assert found.contexts[4] == []
    assert found.window == (BEFORE, AFTER)


def test_the_contexts_of_an_atom_are_firings_of_every_kind_without_duplicates(
    data_of: Callable[..., ActivationDataModule],
) -> None:
    """Each shown value is the code of its token, also of the tokens around it; the strongest come first; none overlap."""
    data = data_of()
    rows, one = data.rows["test"], unit(data.d_in)
    firings = find_firings(one, rows, 250, contexts=3, batch=64)
    vocabulary = Vocabulary(data.model.tokenizer)
    text = shown_text(rows, firings.rows, vocabulary)
    codes = one.encode(rows[firings.rows])
    sample_of = {int(place): number for number, place in enumerate(text.places)}
    words = [vocabulary.texts[token] for token in text.tokens]
    assert [words[place].strip() for place in text.places] == [
        data.model.tokenizer.decode([token]) for token in rows.origin(firings.rows).token_id.tolist()
    ]
    kinds = set()
    for atom, fires in enumerate(firings_by_atom(firings, text)):
        lines = context_fields(fires, choose_contexts(fires, text, 3, seed=atom))
        values = []
        for kind, place, *pairs in lines:
            start = max(s for s in text.starts if s <= place)
            stop = min([s for s in text.starts if s > place] + [len(text.tokens)])
            window = range(max(start, int(place) - BEFORE), min(stop, int(place) + AFTER + 1))
            expected = {
                at - place: float(f"{float(codes[sample_of[at], atom]):.3g}")
                for at in window
                if at in sample_of and codes[sample_of[at], atom] > 0
            }
            assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == expected
            values.append((kind, expected[0]))
            kinds.add(kind)
        top = [value for kind, value in values if kind == STRONGEST]
        assert top == sorted(top, reverse=True)
        if len(fires.values):
            assert top[0] == float(f"{fires.values.max():.3g}")
        places = [int(line[1]) for line in lines]
        assert all(
            abs(a - b) > BEFORE + AFTER or text_of(a, text.starts) != text_of(b, text.starts)
            for i, a in enumerate(places)
            for b in places[:i]
        )
        near = [tuple(words[place - 5 : place + 3]) for place in places]
        assert len(set(near)) == len(near)
    assert kinds == {STRONGEST, *QUARTERS, RANDOM}


def text_of(place: int, starts: list[int]) -> int:
    return sum(start <= place for start in starts)


def test_telling_is_the_entropy_taken_away_without_credit_for_frequent_tokens() -> None:
    """Atom 0 fires on one rare token, 1 everywhere, 2 nine times, 3 on half of the samples of one frequent token.

    Half of all samples are token 0, and the others tokens 1 to 100 in turn.
    """
    n = 4000
    token = torch.where(torch.arange(n) % 2 == 0, 0, torch.arange(n) // 2 % 100 + 1)
    rare, frequent = (token == 7).nonzero().squeeze(1), (token == 0).nonzero().squeeze(1)[:1000]
    samples = torch.cat([rare, torch.arange(n), torch.arange(9), frequent])
    atom = torch.tensor([0] * len(rare) + [1] * n + [2] * 9 + [3] * len(frequent))
    counts = torch.bincount(atom)
    firings = Firings(
        torch.arange(n), counts, counts.float(), counts[None], counts[None], atom, samples, samples.float()
    )
    found = telling(firings, token)
    drawn = torch.randint(n, samples.shape, generator=torch.Generator().manual_seed(0))
    frequency = np.bincount(token.numpy()) / n
    for j in (0, 1, 3):
        own, random = token[samples[atom == j]].numpy(), token[drawn[atom == j]].numpy()
        saved = entropy(np.bincount(random), base=2) - entropy(np.bincount(own), base=2)
        more_frequent = np.mean(np.log2(frequency[own])) - np.mean(np.log2(frequency[random]))
        assert float(found[j]) == pytest.approx(saved - max(0, more_frequent), abs=1e-9)
    assert found[0] > 2
    assert abs(float(found[1])) < 0.1
    assert found[3] < 1.1  # of the 4.3 bits that it saves, 3.3 are what a frequent token takes no surprise for
    assert found[2].isnan()


def test_without_logit_effects_their_fields_are_empty(data_of: Callable[..., ActivationDataModule]) -> None:
    data = data_of()
    rows, sae = data.rows["test"], ThresholdSAE(data.d_in, 10)
    firings = find_firings(unit(data.d_in), rows, 100, contexts=2, batch=64)
    origin = rows.origin(firings.rows)
    entropies = measure_entropies(firings, origin.token_id, origin.document)
    measured = Measured(firings, entropies, None)
    found = atom_browser(sae, random_metric(data.d_in), measured, rows, data.model.tokenizer, 2, seed=0)
    assert list(found.raised) == list(found.lowered) == [None] * 10
    assert "logit" not in [column.key for column in found.columns]
