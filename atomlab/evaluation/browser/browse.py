"""Measures everything that the atom browser and the monosemanticity columns of the table with controls show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch

from atomlab.activations.model.language_model import LanguageModel
from atomlab.evaluation.browser.atom_fields import Measured, atom_browser, short
from atomlab.evaluation.browser.context_similarity import measure_agreement
from atomlab.evaluation.browser.delphi import export_delphi
from atomlab.evaluation.browser.entropies import Entropies, measure_entropies
from atomlab.evaluation.browser.firings import Firings, find_firings
from atomlab.evaluation.browser.logit_effects import logit_effects
from atomlab.evaluation.equal_l0 import Case
from atomlab.evaluation.study import StudyInputs
from atomlab.report import AtomBrowser, AtomColumn, Row, attempt
from atomlab.sae import SAE
from atomlab.theory import AtomicInnerProduct

_FOUND_AGAIN = "Cosine_S of the atom with its partner in another seed's run, matched one to one; mean over runs."
_LOGITS = 8  # shown in either direction of each atom


@final
@dataclass(frozen=True)
class BrowserOptions:
    """What the atom browser does beside its own page.

    Attributes:
        embedder: a sentence-embedding model for the agreement of contexts; None leaves this column out.
        delphi: also write the firings in the cache format of eai-delphi, into the folder `delphi`.
    """

    embedder: LanguageModel | None = None
    delphi: bool = False


@torch.no_grad()
def browse(
    sae: SAE,
    measured: Sequence[tuple[Case, Row]],
    metric: AtomicInnerProduct,
    model: torch.nn.Module | None,
    inputs: StudyInputs,
    options: BrowserOptions,
    missing: list[str],
) -> AtomBrowser:
    """Searches held-out vectors for the firings of every unit, and gathers what the browser shows of the atoms.

    Args:
        sae: whose atoms are browsed.
        measured: every case with its row; the first one is `sae`. The rows of units with non-negative codes that are
            measured on the same vectors get entropies, and the first row gets the agreement of contexts.
        metric: S.
        model: the language model for the effects on the logits; None leaves them out. They exist at the residual stream
            only.
        inputs: of the study.
        options: what else is done.
        missing: gets a sentence about each part that cannot be computed, such as the logit effects of a model without a
            known final norm.

    Returns:
        The data of the browser.

    Raises:
        OSError: the folder `delphi` cannot be written.
    """
    data, held_out = inputs.data, inputs.data.rows["test"]
    firings, entropies = _entropies_of_every_unit(measured, inputs)
    if options.embedder is not None:
        agreement = partial(
            measure_agreement, firings, held_out, data.model.tokenizer, options.embedder, inputs.sample_sizes.seed
        )
        measured[0][1].update(attempt("The agreement of contexts", agreement, missing) or {})
    if options.delphi:
        known = (data.model.tokenizer.pad_token_id, data.model.tokenizer.eos_token_id, 0)
        pad = next(token for token in known if token is not None)
        export_delphi(firings, held_out, inputs.folder / "delphi", str(data.point), data.model.title, pad)
    effects = None
    if model is not None and data.hook_points.site in ("resid_pre", "resid_post"):
        compute = partial(logit_effects, model, sae.W_dec.detach(), _LOGITS)
        effects = attempt("The list of logit effects", compute, missing)
    sizes, found = inputs.sample_sizes, Measured(firings, entropies, effects)
    browser = atom_browser(sae, metric, found, held_out, data.model.tokenizer, sizes.contexts, sizes.seed)
    cosines = measured[0][1].get("matched_cosines")
    if cosines is None:
        return browser
    found_again = AtomColumn("seeds", "seeds", _FOUND_AGAIN, [short(cosine) for cosine in cosines])
    return replace(browser, columns=[*browser.columns, found_again])


def _entropies_of_every_unit(measured: Sequence[tuple[Case, Row]], inputs: StudyInputs) -> tuple[Firings, Entropies]:
    """Adds entropies to the rows, and returns the firings and the entropies of the first case, the atoms."""
    held_out, sizes = inputs.data.rows["test"], inputs.sample_sizes
    found: list[tuple[Firings, Entropies]] = []
    for case, row in measured:
        one_step = case.unit.coder in ("one-step", "nearest")  # other codes take long, and choose atoms for each vector
        if not one_step or case.test is not measured[0][0].test:
            continue
        firings = find_firings(case.unit, held_out, sizes.browsed, sizes.contexts, sizes.batch, sizes.seed)
        origin = held_out.origin(firings.rows)
        entropies = measure_entropies(firings, origin.token_id, _numbered(origin.group), sizes.seed)
        row.update(entropies.row(firings.counts) | {"samples_browsed": len(firings.rows)})
        if not found:
            found.append((firings, entropies))
    return found[0]


def _numbered(names: list[str]) -> torch.Tensor:
    """Returns a number for each document, subject or template, the same for the same name."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])
