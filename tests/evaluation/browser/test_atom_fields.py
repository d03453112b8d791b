"""What the browser shows of each atom, against the firings, the tokens and the whole Gram matrix."""

from collections.abc import Callable

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.atom_fields import atom_browser, nearest_atoms
from atomlab.evaluation.browser.entropies import measure_entropies
from atomlab.evaluation.browser.firings import AFTER, BEFORE, find_firings
from atomlab.evaluation.browser.logit_effects import LogitEffects
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
    found = atom_browser(sae, metric, firings, entropies, rows, tokenizer, effects)

    columns = {column.key: column.values for column in found.columns}
    assert list(columns) == [column.key for column in found.columns]
    codes = one.encode(rows[firings.rows])
    expected = {
        "atom": torch.arange(10),
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
        assert [other for other, _ in nearest] == [other for other in order if other != atom][:5]
        for other, cosine in nearest:
            torch.testing.assert_close(torch.tensor(cosine), gram[atom, other].float(), rtol=5.1e-4, atol=1e-6)
        assert columns["coherence"][atom] == abs(nearest[0][1])

    def texts(numbers: list[int]) -> list[str]:
        return [found.vocabulary[number] for number in numbers]

    for atom in range(10):
        for shown, given in ((found.raised[atom], effects.raised_ids), (found.lowered[atom], effects.lowered_ids)):
            assert shown is not None
            assert texts(list(shown)) == [tokenizer.decode([number]) for number in given[atom].tolist()]
        fires = firings.top_values[:, atom] > 0
        assert len(found.contexts[atom]) == int(fires.sum())
        for (value, place, *context), sample in zip(
            found.contexts[atom], firings.top_samples[fires, atom].tolist(), strict=True
        ):
            assert value == float(f"{float(codes[sample, atom]):.4g}")
            assert found.vocabulary[context[int(place)]] == tokenizer.decode([int(token[sample])])
            assert place <= BEFORE
            assert len(context) - place - 1 <= AFTER
    assert found.contexts[4] == []


def test_without_logit_effects_their_fields_are_empty(data_of: Callable[..., ActivationDataModule]) -> None:
    data = data_of()
    rows, sae = data.rows["test"], ThresholdSAE(data.d_in, 10)
    firings = find_firings(unit(data.d_in), rows, 100, contexts=2, batch=64)
    origin = rows.origin(firings.rows)
    entropies = measure_entropies(firings, origin.token_id, origin.document)
    found = atom_browser(sae, random_metric(data.d_in), firings, entropies, rows, data.model.tokenizer, None)
    assert list(found.raised) == list(found.lowered) == [None] * 10
    assert "logit" not in [column.key for column in found.columns]
