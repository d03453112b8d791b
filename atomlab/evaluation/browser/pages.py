"""The atom browser's data and the monosemanticity columns, which need the same pass over held-out vectors."""

from functools import partial
from typing import Any, Protocol

import torch

from atomlab.activations.model.language_model import LanguageModel
from atomlab.evaluation.browser.contexts import Firing, firing
from atomlab.evaluation.browser.data import browser_data, context_texts, token_texts
from atomlab.evaluation.browser.delphi import export_delphi
from atomlab.evaluation.browser.logits import logit_effects
from atomlab.evaluation.browser.monosemanticity import context_agreement, monosemanticity, sentence_embedder
from atomlab.evaluation.controls import Case
from atomlab.evaluation.study import StudyInputs
from atomlab.report import Row, attempt
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct

_LOGITS = 8
_AGREEMENT_ATOMS = 500


class BrowserOptions(Protocol):
    """What of it is asked for."""

    @property
    def embedder(self) -> LanguageModel | None: ...

    @property
    def delphi(self) -> bool: ...


@torch.no_grad()
def browse(
    sae: ThresholdSAE,
    cases: list[Case],
    rows: list[Row],
    model: torch.nn.Module | None,
    metric: AtomicInnerProduct,
    inputs: StudyInputs,
    options: BrowserOptions,
    missing: list[str],
) -> dict[str, Any]:
    """The browser's data of the first case, the atoms; adds entropies to the rows of every non-negative unit. What cannot
    be computed of it (a model without a known final norm has no logit effects) is left out, with a sentence in `missing`.
    """
    data, sample_sizes = inputs.data, inputs.sample_sizes
    held_out = data.rows["test"]
    found = entropies = None
    for case, row in zip(cases, rows, strict=True):
        if case.unit.signed or case.test is not cases[0].test:
            continue
        fired = firing(
            case.unit, held_out, sample_sizes.browsed, sample_sizes.contexts, sample_sizes.batch, sample_sizes.seed
        )
        origin = held_out.origin(fired.rows)
        measured = monosemanticity(fired, origin.token_id, _groups(origin.group), sample_sizes.seed)
        row |= measured.row(fired.counts) | {"samples_browsed": len(fired.rows)}
        if found is None:
            found, entropies = fired, measured
    assert found is not None
    assert entropies is not None
    if options.embedder is not None:
        embedded = partial(_agreement, found, inputs, options.embedder)
        rows[0] |= attempt("The agreement of contexts", embedded, missing) or {}
    if options.delphi:
        known = (data.model.tokenizer.pad_token_id, data.model.tokenizer.eos_token_id, 0)
        pad = next(token for token in known if token is not None)
        export_delphi(found, held_out, inputs.folder / "delphi", str(data.point), data.model.title, pad)
    residual = model is not None and data.hook_points.site in ("resid_pre", "resid_post")
    logits = None
    if residual and model is not None:
        logits = attempt(
            "The list of logit effects", lambda: logit_effects(model, sae.W_dec.detach(), _LOGITS), missing
        )
    return browser_data(
        sae.W_dec.detach(), sae.threshold.detach(), metric, found, entropies, held_out, data.model.tokenizer, logits
    )


def _groups(names: list[str]) -> torch.Tensor:
    """Documents, subjects or templates as numbers."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])


def some(groups: list[list[str]], count: int, generator: torch.Generator) -> list[list[str]]:
    """At most `count` of them at random: released SAEs may number their atoms by how often they fire."""
    return [groups[i] for i in torch.randperm(len(groups), generator=generator)[:count].sort().values.tolist()]


def _agreement(found: Firing, inputs: StudyInputs, embedder: LanguageModel) -> Row:
    """Median over a random sample of the atoms with two contexts at least, and over as many groups of random contexts."""
    held_out, embed = inputs.data.rows["test"], sentence_embedder(embedder)
    generator = torch.Generator().manual_seed(inputs.sample_sizes.seed)
    groups = some(context_texts(found, held_out, inputs.data.model), _AGREEMENT_ATOMS, generator)
    drawn = torch.randint(len(held_out), (sum(map(len, groups)),), generator=generator)
    random = iter(token_texts(inputs.data.model.tokenizer, held_out.contexts(drawn, before=16, after=6)))
    null = [[next(random) for _ in group] for group in groups]
    medians = [float(torch.tensor(context_agreement(part, embed)).nanmedian()) for part in (groups, null)]
    return {
        "context_agreement": medians[0],
        "context_agreement_null": medians[1],
        "samples_agreement_atoms": len(groups),
    }
