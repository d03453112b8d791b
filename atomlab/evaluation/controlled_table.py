"""Are these atoms? One model, layer and site: every set of units, every column, the controls and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.language_model import LanguageModel
from atomlab.evaluation.atom_pages import browse
from atomlab.evaluation.bench import Bench
from atomlab.evaluation.by_size import size_tables
from atomlab.evaluation.certificates import certify
from atomlab.evaluation.controls import CONTROLS, Case, control_cases
from atomlab.evaluation.figures import shift_figures, table_figures
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.run import conclude, pursuit_size, reference_metric
from atomlab.evaluation.splicing import splice
from atomlab.evaluation.table import Row
from atomlab.report import write_results
from atomlab.sae import ThresholdSAE, load_sae
from atomlab.theory import AtomicInnerProduct, mean_matched_cosine, random_dictionary
from atomlab.units import atoms, features, neurons

NOTES = {
    "atoms": "The trained TSAE: its decoder rows, coded by its own one-step threshold encoder.",
    "neurons": "The identity basis of the site: the code is the activation, so R² = 1 at L0 = d_in by construction.",
    "features": "An imported SAE, as released.",
}


@final
@dataclass(frozen=True)
class ControlledTable:
    """The table with controls.

    Args:
        atoms: folder of a saved SAE; the run's own if None; without a run, one is trained.
        features: imported SAEs by the name of their row: SAELens folders or Gemma Scope's params.npz.
        seeds: folders of runs that differ in their seed, for consistency.
        retrain: further seeds trained here for consistency.
        controls: names of `atomlab.evaluation.controls.CONTROLS`.
        certify: all levels, isometry verdicts and identifiability too.
        loss: run the language model with x̂ in place of x.
        browser: atom browser and monosemanticity proxies.
        embedder: sentence-embedding model for context agreement, if there is one.
        delphi: write the firings in eai-delphi's format.
    """

    atoms: str | None = None
    features: Mapping[str, str] | None = None
    seeds: Sequence[str] = ()
    retrain: int = 0
    controls: Sequence[str] = tuple(CONTROLS)
    certify: bool = True
    loss: bool = True
    browser: bool = True
    embedder: LanguageModel | None = None
    delphi: bool = False

    def __call__(self, bench: Bench) -> tuple[str, float]:
        """Writes `write_results`; returns its text and the atoms' held-out R² in the S-norm.

        Raises:
            FileNotFoundError, ValueError: an SAE that cannot be read or does not fit the site; an unknown control.
        """
        data = bench.data
        data.prepare_data()
        data.setup()
        metric = reference_metric(data, bench.shrinkage)
        sae = self._sae(bench)
        cases, rows = self._measure(sae, metric, bench)
        rows[0] |= self._consistency(sae, metric, bench)
        model = data.model.load() if (self.loss or self.browser) and data.model.is_causal else None
        if self.loss and model is not None:
            _add_losses(cases, rows, model, data, bench.protocol.loss_tokens)
        browser = browse(sae, cases, rows, model, metric, bench, self) if self.browser else None
        return _write(rows, sae, metric, cases, browser, bench), rows[0]["r2_test_s"]

    def _sae(self, bench: Bench) -> ThresholdSAE:
        folder = Path(self.atoms) if self.atoms is not None else bench.run and bench.run / "sae"
        if folder is None:
            return bench.recipe.train(bench.data, seed=bench.seed)
        sae = load_sae(folder)
        if sae.d_in != bench.data.d_in:
            raise ValueError(
                f"The SAE in {folder} has d_in={sae.d_in} and this site {bench.data.d_in}: choose its site."
            )
        return sae

    def _measure(self, sae: ThresholdSAE, metric: AtomicInnerProduct, bench: Bench) -> tuple[list[Case], list[Row]]:
        data, protocol = bench.data, bench.protocol
        train, test = data.sample("train", protocol.samples), data.sample("test", protocol.samples)
        imported = [features(Path(path), data.d_in, name) for name, path in (self.features or {}).items()]
        cases = [Case(atoms(sae), train, test, trained_on(data))]
        cases += [Case(unit, train, test) for unit in (neurons(data.d_in), *imported)]
        rows = [self._row(cases[0], metric, bench)]
        k = pursuit_size(rows[0]["l0"], data.d_in)
        cases += control_cases(self.controls, sae.d_sae, k, cases[0], data, metric, bench.recipe, protocol)
        return cases, rows + [self._row(case, metric, bench) for case in cases[1:]]

    def _row(self, case: Case, metric: AtomicInnerProduct, bench: Bench) -> Row:
        row = case.row(metric, bench.protocol)
        if self.certify:
            row = certify(case.unit, row, case.train, case.test, metric, bench.protocol)
        return row | metric_of(bench.data, bench.shrinkage)

    def _consistency(self, sae: ThresholdSAE, metric: AtomicInnerProduct, bench: Bench) -> Row:
        """Mean matched cosine with the atoms of other seeds, if there are any, and of two random dictionaries."""
        others = [load_sae(Path(folder) / "sae") for folder in self.seeds]
        expansion = sae.d_sae / sae.d_in
        others += [
            bench.recipe.train(bench.data, seed=bench.seed + i + 1, expansion=expansion) for i in range(self.retrain)
        ]
        if not others:
            return {}
        cosines = [mean_matched_cosine(sae.W_dec.detach(), other.W_dec.detach(), metric) for other in others]
        generator = torch.Generator().manual_seed(bench.protocol.seed)
        a, b = (random_dictionary(sae.d_sae, sae.d_in, generator) for _ in range(2))
        return {
            "consistency": sum(cosines) / len(cosines),
            "consistency_random": mean_matched_cosine(a, b),
            "samples_seeds": len(others),
        }


def _add_losses(
    cases: list[Case], rows: list[Row], model: torch.nn.Module, data: ActivationDataModule, tokens: int
) -> None:
    """Units that are measured on the data itself; not the surrogate's own vectors."""
    edits = {
        str(number): case.unit.reconstruct
        for number, case in enumerate(cases)
        if case.test is cases[0].test and case.unit.name != "neurons"
    }
    spliced = splice(model, data.point, data.rows["test"], data.moments.mean.float(), edits, tokens)
    for number in edits:
        rows[int(number)] |= spliced.row(number)


def _write(
    rows: list[Row],
    sae: ThresholdSAE,
    metric: AtomicInnerProduct,
    cases: list[Case],
    browser: dict[str, Any] | None,
    bench: Bench,
) -> str:
    provenance = describe(bench.data, bench.protocol, bench.shrinkage, bench.seed) | {"sample sizes": _sizes(bench)}
    return write_results(
        bench.folder,
        title=f"Atoms of {provenance['model']}, {provenance['site']}",
        rows=rows,
        figures=table_figures(rows, sae, metric, cases) | shift_figures(bench.data, bench.shrinkage, bench.seed),
        configuration=bench.configuration,
        provenance=provenance,
        conclusion=f"{conclude(rows)} {provenance['measured on']}",
        tables=size_tables(rows),
        notes=NOTES | CONTROLS,
        browser=browser,
    )


def _sizes(bench: Bench) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in vars(bench.protocol).items())
