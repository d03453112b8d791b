"""Capacity against data (theory.md 10): what an in-sample R² of 99.9% means, and when it is memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from atomlab.evaluation.provenance import describe, metric_of
from atomlab.evaluation.rows.firing import firing_shares
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import explained, measure
from atomlab.evaluation.scaling.critical_size import critical_law
from atomlab.evaluation.scaling.interval import NotEnoughCells
from atomlab.evaluation.study import StudyInputs, kept
from atomlab.evaluation.surrogates import gaussian_vectors
from atomlab.ranges import Count, Positive
from atomlab.report import COLUMNS, Column, Page, Results, Row, capacity_figure, write_results
from atomlab.theory import AtomicInnerProduct
from atomlab.training.build import reference_metric
from atomlab.training.vectors import VectorsDataModule
from atomlab.units import atoms

_TARGET = 0.9  # in-sample R² in the S-norm whose critical number of atoms is fitted
_COLUMNS = (
    Column("unit", "data", "What the TSAE was trained on."),
    Column("vectors", "vectors", "Training vectors.", "d"),
    Column("d_sae", "atoms", "Number of atoms.", "d"),
    Column("r2_train", "R² train", "Euclidean, on training vectors."),
    Column("r2", "R² held out", "The same on held-out vectors."),
    Column("r2_s_train", "R²_S train", "In the S-norm, on training vectors."),
    Column("r2_s", "R²_S held out", "The same on held-out vectors."),
    Column("r2_s_validation", "R²_S validation", "The same on validation vectors, which choices go by."),
    Column("l0_train", "L0 train", "Mean number of non-zero codes a training vector.", ".1f"),
    Column("l0", "L0", "The same, a held-out vector.", ".1f"),
    Column(
        "single_sample",
        "single",
        "Share of atoms that fire on exactly one of the training vectors.",
        ".1%",
    ),
    Column("stability_pairwise", "q* pairs", "Stability over pairs.", ".1%"),
    Column("stability_pairwise_random", "q* pairs, random", "The same of random atoms at this L0.", ".1%"),
    Column("stability_per_atom", "q* atoms", "Stability over atoms.", ".1%"),
    Column("stability_per_atom_random", "q* atoms, random", "The same of random atoms at this L0.", ".1%"),
    *(column for column in COLUMNS if column.key in ("samples_train", "samples", "s_corpus", "s_vectors", "shrinkage")),
)


@final
@dataclass(frozen=True)
class CapacityGrid:
    """The study that trains a TSAE for each number of training vectors and each number of atoms.

    Attributes:
        vectors: numbers of training vectors; a number above what there is stands for all of them.
        expansions: numbers of atoms, as d_sae / d_in.
        surrogate: whether the same grid is trained on Gaussian vectors with the data's mean and covariance.
    """

    reads_activations: ClassVar[bool] = True

    vectors: Sequence[Count] = (2000, 4000, 8000, 16000)
    expansions: Sequence[Positive] = (1, 4, 8)
    surrogate: bool = True

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]:
        """Trains and measures every cell of the grid, and writes the results (`write_results`).

        Finished cells are kept (`kept`), so that a stopped study goes on.

        Args:
            inputs: what the study is given.

        Returns:
            The text to print, and the objective: the largest difference of a cell between its R² in the S-norm on training
            vectors and on validation vectors.

        Cost: one training for each cell.
        """
        data = inputs.data
        data.prepare_data()
        data.setup()
        metric = reference_metric(data, inputs.shrinkage)
        available = data.sample("train", max(self.vectors))
        counts = list(dict.fromkeys(min(count, len(available)) for count in self.vectors))
        order = torch.randperm(len(available), generator=torch.Generator().manual_seed(inputs.seed))
        test = HeldOut.of(data, inputs.sample_sizes.measured)
        validation = data.sample("validation", inputs.sample_sizes.measured)
        sources = {"data": (available[order], validation, test)}
        if self.surrogate:
            generator = torch.Generator().manual_seed(inputs.seed)
            drawn = gaussian_vectors(data.moments, len(available), generator)
            fresh = gaussian_vectors(data.moments, len(test), generator)
            chosen_by = gaussian_vectors(data.moments, len(validation), generator)
            sources["Gaussian surrogate"] = (drawn, chosen_by, HeldOut.independent(fresh))
        rows = [
            self._cell(name, (train[:count], validation, test), expansion, metric, inputs)
            for name, (train, validation, test) in sources.items()
            for count in counts
            for expansion in self.expansions
        ]
        return self._write(rows, counts, inputs), max(row["r2_s_train"] - row["r2_s_validation"] for row in rows)

    def _cell(
        self,
        name: str,
        splits: tuple[torch.Tensor, torch.Tensor, HeldOut],
        expansion: float,
        metric: AtomicInnerProduct,
        inputs: StudyInputs,
    ) -> Row:
        """Trains and measures one cell; `splits` are its training, validation and held-out vectors."""
        train, validation, test = splits

        def compute() -> list[Row]:
            retraining = inputs.retraining
            vectors = VectorsDataModule(
                train,
                inputs.data.reference_moments,
                batch_size=retraining.batch_size,
                steps=retraining.steps,
                seed=inputs.seed,
            )
            sae = retraining.train(vectors, seed=inputs.seed, expansion=expansion)
            sample = vectors.sample("train", inputs.sample_sizes.measured)
            unit = atoms(sae, name)
            row, _ = measure(unit, sample, test, metric, inputs.sample_sizes)
            row |= firing_shares(unit, train.split(inputs.sample_sizes.batch))
            row["r2_s_validation"] = explained(unit, validation, metric, inputs.sample_sizes.batch)
            return [{"vectors": len(train)} | row | metric_of(inputs.data, inputs.shrinkage)]

        part = f"{name}-{len(train)}-{expansion:g}".replace(" ", "-")
        (row,) = kept(inputs, part, max(self.vectors), compute)  # it draws from as many vectors
        return row

    def _write(self, rows: list[Row], counts: list[int], inputs: StudyInputs) -> str:
        provenance = describe(inputs.data, inputs.sample_sizes, inputs.shrinkage, inputs.seed)
        provenance["measured on"] = (
            f"Each cell measured on at most {inputs.sample_sizes.measured:,} of its own training vectors and "
            f"{rows[0]['samples']:,} held-out ones."
        )
        figures = {"R² in the S-norm over atoms and training vectors": lambda: capacity_figure(*_maps(rows, counts))}
        title = f"Capacity against data: {provenance['model']}, {provenance['site']}"
        return write_results(
            inputs.folder,
            Results(rows, _verdict(rows), provenance, inputs.identity, _COLUMNS),
            Page(title, inputs.configuration),
            figures,
        )


def _verdict(rows: list[Row]) -> str:
    gap = max(rows, key=lambda row: row["r2_s_train"] - row["r2_s"])
    cells = [(row["vectors"], row["d_sae"], row["r2_s_train"]) for row in rows if row["unit"] == rows[0]["unit"]]
    law = critical_law(cells, _TARGET)
    needed = (
        f"How many atoms an in-sample R² needs is not known: {law.sentence}."
        if isinstance(law, NotEnoughCells)
        else f"In sample, {_TARGET:.0%} needs about {law.coefficient.value:.2g} · vectors^{law.exponent.value:.2f} atoms "
        f"(fit over {len(law.points)} numbers of vectors; 95% interval of the power {law.exponent.low:.2f} to "
        f"{law.exponent.high:.2f})."
    )
    return (
        f"{needed} Widest gap: {gap['d_sae']} atoms on {gap['vectors']:,} vectors ({gap['unit']}), R² in the S-norm "
        f"{gap['r2_s_train']:.3f} in sample and {gap['r2_s']:.3f} held out. A high in-sample R² with about as many "
        "atoms as vectors is no evidence of atoms: compare the Gaussian surrogate, which has none."
    )


def _maps(rows: list[Row], counts: list[int]) -> tuple[list[int], list[int], dict[str, NDArray]]:
    """Returns the numbers of vectors, the numbers of atoms, and R² over both, in sample and held out, of each data."""
    sizes = sorted({row["d_sae"] for row in rows})
    grids = {}
    for name in dict.fromkeys(row["unit"] for row in rows):
        cells = {(row["d_sae"], row["vectors"]): row for row in rows if row["unit"] == name}
        for split, key in (("in sample", "r2_s_train"), ("held out", "r2_s")):
            grids[f"{name}, {split}"] = np.array([[cells[n, count][key] for count in counts] for n in sizes])
    return counts, sizes, grids
