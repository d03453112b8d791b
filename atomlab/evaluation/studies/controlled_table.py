"""The table with controls: are these atoms? Every set of units at one layer and site, and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.browser.browse import BrowserOptions, browse
from atomlab.evaluation.controls import CONTROL_SOURCES, CONTROLS, control_cases
from atomlab.evaluation.equal_l0 import Case, EqualL0, atoms_case
from atomlab.evaluation.option_checks import check_list, check_names
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.rows.certify import certify
from atomlab.evaluation.rows.conclusion import conclude, with_memory
from atomlab.evaluation.rows.differences import with_differences
from atomlab.evaluation.rows.firing import firing_on_training
from atomlab.evaluation.rows.headline import headline, overview_figures
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import Replicates, on_validation
from atomlab.evaluation.rows.rates_by_support_size import size_tables
from atomlab.evaluation.rows.returning import returning
from atomlab.evaluation.rows.splicing import splice
from atomlab.evaluation.rows.vector_tables import band_tables
from atomlab.evaluation.saved_sae import save_trained
from atomlab.evaluation.studies.controlled_table_figures import shift_figures, table_figures
from atomlab.evaluation.study import StudyInputs
from atomlab.identity import Identity, check_same
from atomlab.interop.load import identity_in
from atomlab.interop.locate import check_seed, load_at_site, locate, same_start
from atomlab.ranges import Index
from atomlab.report import AtomBrowser, Page, Results, Row, attempt, write_numbers, write_results
from atomlab.sae import SAE
from atomlab.theory import AtomicInnerProduct
from atomlab.training.build import reference_metric
from atomlab.units import CODERS

SOURCES = ("atoms", "neurons", *CONTROL_SOURCES)
NOTES = {
    "atoms": "The trained TSAE: its decoder rows, coded by its own one-step threshold encoder.",
    "neurons": "The identity basis of the site: the code is the activation, so R² = 1 at L0 = d_in by construction.",
    "features": "An imported SAE, as released; its rows with a coder have the atoms' L0.",
}


@final
@dataclass(frozen=True)
class ControlledTable:
    """The study of one model, layer and site: atoms, neurons, controls and imported SAEs, in every column.

    Attributes:
        atoms: what is measured as the atoms: whatever `atomlab.load` takes. None takes the run that evaluate.py was given;
            without a run, a TSAE is trained.
        features: imported SAEs by the name of their row: for each whatever `atomlab.load` takes.
        seeds: paths of runs that differ from the atoms' run in their seed only. How well their atoms match is measured.
        retrain: number of further seeds that the study trains itself for this.
        controls: names of `atomlab.evaluation.controls.CONTROLS`.
        coders: names of `atomlab.units.CODERS`: how atoms, controls and imported SAEs are coded, all at the atoms' L0. The
            atoms' own one-step code is measured whatever they are.
        certify: whether all levels, isometry verdicts and identifiability are measured.
        loss: whether the language model is run with x̂ in place of x.
        browser: options of the atom browser and of the monosemanticity columns; None leaves both out.
    """

    reads_activations: ClassVar[bool] = True

    atoms: str | None = None
    features: Mapping[str, str] | None = None
    seeds: Sequence[str] = ()
    retrain: Index = 0
    controls: Sequence[str] = tuple(CONTROLS)
    coders: Sequence[str] = ("threshold", "threshold_pursuit", "omp")
    certify: bool = True
    loss: bool = True
    browser: BrowserOptions | None = field(default_factory=BrowserOptions)

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]:
        """Measures every row, and writes the results (`write_results`).

        Each row is on disk as soon as it is measured, so that a later failure does not cost it. What cannot be computed of
        this model is left out, and the report says why.

        Args:
            inputs: what the study is given.

        Returns:
            The text to print, and the objective: the atoms' R² in the S-norm on validation vectors.

        Raises:
            FileNotFoundError, ValueError: an SAE that cannot be read or does not fit the site, an unknown control, or a
                feature named like another row. Nothing has been trained or measured then.
        """
        data = inputs.data
        self._check(inputs)
        data.prepare_data()
        data.setup()
        metric = reference_metric(data, inputs.shrinkage)
        imported = {name: load_at_site(path, data, metric) for name, path in (self.features or {}).items()}
        others = [load_at_site(path, data, metric) for path in self.seeds]
        sae = self._sae(metric, inputs)
        missing: list[str] = []
        cases, rows = self._measure(sae, imported, metric, inputs, missing)
        found = attempt(
            "How well other seeds find the atoms again",
            lambda: self._returning(sae, others, cases[0].test, metric, inputs),
            missing,
        )
        rows[0] |= found or {}
        keep(rows, inputs)
        needed = self.loss or self.browser is not None
        model = data.model.load() if needed and data.model.is_causal else None
        if self.loss and model is not None:
            attempt(
                "The loss with reconstructions",
                lambda: _add_losses(cases, rows, model, data, inputs.sample_sizes.loss_tokens),
                missing,
            )
            keep(rows, inputs)
        browser = None
        if self.browser is not None:
            measured = list(zip(cases, rows, strict=True))
            made = partial(browse, sae, measured, metric, model, inputs, self.browser, missing)
            browser = attempt("The atom browser", made, missing)
        return _write(rows, sae, metric, cases, browser, missing, inputs), rows[0]["r2_s_validation"]

    def _check(self, inputs: StudyInputs) -> None:
        """Raises for everything that can be wrong with the options, before anything is harvested, trained or measured."""
        check_names("study.controls", self.controls, CONTROLS)
        check_names("study.coders", self.coders, CODERS)
        check_list("study.seeds", self.seeds)
        if taken := [name for name in self.features or {} if name in SOURCES or " + " in name]:
            raise ValueError(
                f"study.features names a row {', '.join(taken)}, which the table has or which could be one of its rows with "
                "a coder: choose another name, without “ + ”."
            )
        if self.browser is not None and (embedder := self.browser.embedder) is not None:
            _ = embedder.config, embedder.tokenizer  # read here, so that a wrong name is found now
        ours = self._identity(inputs)
        if self.atoms is None and ours is not None:
            remedy = (
                f"put back what {inputs.run} was left with, or name the other SAE as study.atoms beside its own options"
            )
            check_same(inputs.identity, ours, what=f"The SAE in {inputs.run}", remedy=remedy, may_differ=("code",))
        for path in (self.features or {}).values():
            locate(path, inputs.data)
        for path in self.seeds:
            check_seed(locate(path, inputs.data), ours)

    def _own(self, inputs: StudyInputs) -> str | Path | None:
        return inputs.run if self.atoms is None else self.atoms

    def _identity(self, inputs: StudyInputs) -> Identity | None:
        """Returns the record of the run whose atoms are measured; None where the SAE has none."""
        own = self._own(inputs)
        return inputs.identity if own is None else identity_in(locate(own, inputs.data))

    def _sae(self, metric: AtomicInnerProduct, inputs: StudyInputs) -> SAE:
        own = self._own(inputs)
        if own is not None:
            return load_at_site(own, inputs.data, metric)
        sae = inputs.retraining.train(inputs.data, seed=inputs.seed)
        save_trained(sae, inputs.folder / "sae", inputs.data, inputs.identity, inputs.sample_sizes.measured)
        return sae

    def _measure(
        self,
        sae: SAE,
        imported: Mapping[str, SAE],
        metric: AtomicInnerProduct,
        inputs: StudyInputs,
        missing: list[str],
    ) -> tuple[list[Case], list[Row]]:
        """Measures every row; the rows known so far are on disk after each."""
        data, sizes = inputs.data, inputs.sample_sizes
        own = atoms_case(sae, data, sizes.measured, trained_on(data) if self.atoms is None else None)
        equal = EqualL0.of(own, data, metric, sizes.measured)
        cases = equal.trained_cases(sae, imported, self.coders, missing)
        measured: list[tuple[Row, Replicates]] = []
        rows: list[Row] = []

        def add(case: Case) -> None:
            row, replicates = self._row(case, metric, inputs)
            if not measured:
                row |= on_validation(case.unit, data, metric, sizes)
            measured.append((row, replicates))
            rows[:] = with_memory(with_differences(measured, own.test.count))
            keep(rows, inputs)

        for case in cases:
            add(case)
        controls = control_cases(self.controls, self.coders, equal, data, inputs.retraining, sizes, missing)
        for case in controls:
            add(case)
        return cases + controls, rows

    def _row(self, case: Case, metric: AtomicInnerProduct, inputs: StudyInputs) -> tuple[Row, Replicates]:
        row, replicates = case.measured(metric, inputs.sample_sizes)
        row |= firing_on_training(case.unit, inputs.data, inputs.sample_sizes)
        if self.certify:
            row = certify(case.unit, row, case.train, case.test, metric, inputs.sample_sizes)
        return row | metric_of(inputs.data, inputs.shrinkage), replicates

    def _returning(
        self,
        sae: SAE,
        seeds: list[SAE],
        test: HeldOut,
        metric: AtomicInnerProduct,
        inputs: StudyInputs,
    ) -> Row:
        """Measures how well other seeds find these atoms again (`returning`), after training those that are missing."""
        expansion, retraining = sae.d_sae / sae.d_in, inputs.retraining
        others = seeds + [
            retraining.train(inputs.data, seed=inputs.seed + i + 1, expansion=expansion) for i in range(self.retrain)
        ]
        start = retraining.recipe.initial_atoms.paths
        shared = bool(start and self.retrain) or any(
            same_start(locate(path, inputs.data), self._identity(inputs)) for path in self.seeds
        )
        sizes = inputs.sample_sizes
        return returning(sae, others, test, metric, batch=sizes.batch, seed=sizes.seed, shared_start=shared)


def _add_losses(
    cases: list[Case], rows: list[Row], model: torch.nn.Module, data: ActivationDataModule, tokens: int
) -> None:
    """Adds loss recovered and KL to the rows of units that are measured on the data itself."""
    edits = {
        str(number): case.unit.reconstruct
        for number, case in enumerate(cases)
        if case.test is cases[0].test and case.unit.name != "neurons"
    }
    spliced = splice(model, data.point, data.rows["test"], data.moments.mean.float(), edits, tokens)
    for number in edits:
        rows[int(number)] |= spliced.row(number)


def keep(rows: list[Row], inputs: StudyInputs) -> None:
    """Writes the rows that are known so far (`write_numbers`).

    Args:
        rows: of the table, the atoms' row first.
        inputs: of the study, whose folder the files go to.
    """
    provenance = _provenance(inputs)
    write_numbers(inputs.folder, Results(rows, _conclusion(rows, provenance), provenance, inputs.identity))


def _write(
    rows: list[Row],
    sae: SAE,
    metric: AtomicInnerProduct,
    cases: list[Case],
    browser: AtomBrowser | None,
    missing: list[str],
    inputs: StudyInputs,
) -> str:
    provenance = _provenance(inputs)
    shift = shift_figures(inputs.data, inputs.shrinkage, inputs.seed, missing)
    overview = overview_figures(rows)
    page = Page(
        f"Atoms of {provenance['model']}, {provenance['site']}",
        inputs.configuration,
        tables=band_tables(rows) | size_tables(rows),
        notes=NOTES | CONTROLS,
        browser=browser,
        facts=headline(rows),
        overview=tuple(overview),
        missing=missing,
    )
    results = Results(rows, _conclusion(rows, provenance), provenance, inputs.identity)
    return write_results(inputs.folder, results, page, overview | table_figures(rows, sae, metric, cases) | shift)


def _provenance(inputs: StudyInputs) -> dict[str, str]:
    return describe(inputs.data, inputs.sample_sizes, inputs.shrinkage, inputs.seed) | {"sample sizes": _sizes(inputs)}


def _conclusion(rows: list[Row], provenance: dict[str, str]) -> str:
    return f"{conclude(rows)} {provenance['measured on']}"


def _sizes(inputs: StudyInputs) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in vars(inputs.sample_sizes).items())
