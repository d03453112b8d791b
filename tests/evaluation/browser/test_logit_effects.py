"""Logit effects against the formula of each family's final norm."""

from collections.abc import Callable

import pytest
import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.logit_effects import logit_effects

Data = Callable[..., ActivationDataModule]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_logit_effects_are_the_unembedding_of_the_normed_direction(data_of: Data, family: str) -> None:
    data = data_of(family)
    model = data.model.load()
    atoms = torch.randn(7, data.d_in, generator=torch.Generator().manual_seed(1))
    found = logit_effects(model, atoms, 3, block=2)
    head = model.get_output_embeddings().weight
    if family == "llama":
        direction = model.model.norm.weight * atoms / atoms.square().mean(1, keepdim=True).add(1e-6).sqrt()
    else:
        centred = atoms - atoms.mean(1, keepdim=True)
        direction = model.transformer.ln_f.weight * centred / centred.square().mean(1, keepdim=True).add(1e-5).sqrt()
    effect = direction @ head.T
    effect -= effect.mean(1, keepdim=True)
    for values, ids, largest in ((found.raised, found.raised_ids, True), (found.lowered, found.lowered_ids, False)):
        best = effect.topk(3, dim=1, largest=largest)
        torch.testing.assert_close(values, best.values, atol=1e-4, rtol=1e-4)
        assert torch.equal(ids, best.indices)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_atoms_length_does_not_change_its_logit_effects(data_of: Data, family: str) -> None:
    """faults.md D10: the ε of the final norm shrank the effects of short atoms; of an atom of length 1e-3 to a fifth."""
    data = data_of(family)
    model = data.model.load()
    atoms = torch.randn(7, data.d_in, generator=torch.Generator().manual_seed(1))
    expected = logit_effects(model, atoms, 3)
    for scale in (2.0**-20, 1e-3, 17.0):
        found = logit_effects(model, atoms * scale, 3)
        for name, value in vars(found).items():
            own = vars(expected)[name]
            if own.dtype == torch.int64:
                assert torch.equal(value, own)
            else:  # two roundings of an atom, and the sums of a norm and of a product over d_in entries
                torch.testing.assert_close(value, own, rtol=4 * data.d_in * 2.0**-23, atol=1e-6)
    zero = logit_effects(model, torch.zeros(1, data.d_in), 3)
    assert torch.equal(zero.raised, torch.zeros(1, 3))
