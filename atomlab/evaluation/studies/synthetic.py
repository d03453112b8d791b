"""Ground truth: planted dictionaries, and how near a TSAE and what it is compared with come to them.

It is the only study in which a certificate can be held against the true code.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from atomlab.coders import nonnegative_omp
from atomlab.evaluation.option_checks import check_list, check_names
from atomlab.evaluation.planted import Law, planted_laws
from atomlab.evaluation.planted_by_saelens import saelens_law
from atomlab.evaluation.provenance import commit
from atomlab.evaluation.rows.against_truth import Truth, against_truth
from atomlab.evaluation.study import StudyInputs, kept
from atomlab.ranges import Count, Positive
from atomlab.report import Column, Page, Results, Row, write_results
from atomlab.training.fit import fit
from atomlab.training.kinds import defaults_of, with_changes
from atomlab.training.recipe import OWN_STARTS, Kind
from atomlab.units import Unit, atoms

NAMES: dict[Kind, str] = {
    "threshold": "TSAE",
    "relu": "ReLU",
    "top_k": "TopK",
    "batch_top_k": "BatchTopK",
    "gated": "Gated",
}
_PLANTED = "planted atoms + OMP ≥ 0"
_COLUMNS = (
    Column("unit", "units", "A trained SAE with its own codes, or the true atoms with codes by non-negative OMP."),
    Column("law", "law", "How the vectors are made."),
    Column("mu", "μ true", "Mutual coherence of the true atoms, Euclidean."),
    Column("mcc", "MCC", "Mean cosine of the best one-to-one matching of atoms with the true ones."),
    Column("r2", "R²", "Share of the variance that is explained, Euclidean, of fresh vectors."),
    Column("l0", "L0", "Mean number of atoms of a fresh vector.", ".2f"),
    Column("f1", "F1", "Support F1 on matched atoms: 2·hits / (firings + true firings)."),
    Column("true", "true", "Share of vectors whose support is the true one.", ".1%"),
    Column("certified_level_1", "cert. 1", "Share of codes that are provably the unique sparsest of x̂.", ".1%"),
    Column("true_if_certified_1", "true | 1", "Share of true supports among codes certified at level 1.", ".1%"),
    Column("true_if_not_certified_1", "true | not 1", "The same among the other codes.", ".1%"),
    Column("certified_level_4", "cert. 4", "Share of codes that are provably the unique ℓ1-minimal of x̂.", ".1%"),
    Column("true_if_certified_4", "true | 4", "Share of true supports among codes certified at level 4.", ".1%"),
    Column("true_if_not_certified_4", "true | not 4", "The same among the other codes.", ".1%"),
    Column(
        "contradictions", "refuted", "Certificates that the true code refutes; one would be an error of atomlab.", "d"
    ),
    Column("samples", "vectors", "Fresh vectors.", "d"),
)


@final
@dataclass(frozen=True)
class SyntheticStudy:
    """The study of planted dictionaries: every kind of SAE at the same vectors, width, steps and L0.

    Attributes:
        d_in: width of the vectors, a power of two; there are 2·d_in true atoms and as many trained ones.
        l0: mean number of true atoms of a vector, which the SAEs are trained to as well.
        vectors: number of training vectors.
        kinds: `threshold`, `relu`, `top_k`, `batch_top_k`, `gated`.
        initial_atoms: where the atoms of all kinds start: `data`, `random` or `kmeans`.
        changes: choices that differ from the recipe of every kind, by their names on the command line, such as
            `{"sae.alpha": 0.5, "training.noise": 0.0}` (`atomlab.fit`); None for none.
        own_laws: whether atomlab's own laws are among those of the study; `d_in` and `l0` are theirs alone.
        saelens: synthetic models of SAELens as further laws: `plain`, `structured`, or a folder or hub name (`saelens_law`).
            They bring their own width and L0, and need the package sae-lens.
    """

    reads_activations: ClassVar[bool] = False

    d_in: Count = 32
    l0: Positive = 2.0
    vectors: Count = 20_000
    kinds: Sequence[str] = tuple(NAMES)
    initial_atoms: str = "data"
    changes: Mapping[str, Any] | None = None
    own_laws: bool = True
    saelens: Sequence[str] = ()

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]:
        """Trains and measures every kind on every law, and writes the results (`write_results`).

        Neither the language model nor its activations are read. Finished rows are kept (`kept`), so that a stopped study
        goes on.

        Args:
            inputs: what the study is given; its steps, batch size and seed are those of the trainings.

        Returns:
            The text to print, and the objective: the mean MCC of the first kind.

        Raises:
            ValueError: an unknown kind, start or change, a width that is no power of two, an L0 that is not between 0 and
                2·d_in, no law at all, or a model of SAELens that cannot be had.
        """
        check_names("kinds", self.kinds, NAMES)
        check_names("study.initial_atoms", [self.initial_atoms], OWN_STARTS)
        if isinstance(self.d_in, bool) or self.d_in < 4 or self.d_in & (self.d_in - 1):
            raise ValueError(f"study.d_in={self.d_in} should be a power of two, 4 or more.")
        if not 0 < self.l0 < 2 * self.d_in:
            raise ValueError(f"study.l0={self.l0} should be above 0 and below the 2·d_in={2 * self.d_in} true atoms.")
        with_changes(*defaults_of("threshold", 2.0, self.l0), self._choices)
        check_list("study.saelens", self.saelens)
        laws: list[Law] = [*planted_laws(self.d_in, self.l0, inputs.seed)] if self.own_laws else []
        laws.extend(saelens_law(name, inputs.seed) for name in self.saelens)
        if not laws:
            raise ValueError("study.own_laws=false leaves no law: name some by study.saelens=[plain,structured].")
        rows: list[Row] = []
        for law in laws:
            for kind in self.kinds:
                rows += self._part(law, kind, inputs)
            rows += self._part(law, None, inputs)
        provenance = {
            "vectors": f"{self.vectors:,} for training and {inputs.sample_sizes.measured:,} fresh ones of each law",
            "atoms start at": self.initial_atoms,
            "changes of the recipes": ", ".join(f"{name}={value}" for name, value in (self.changes or {}).items())
            or "none",
            "seed": str(inputs.seed),
            "commit": commit(),
        }
        results = Results(rows, verdict(rows), provenance, inputs.identity, _COLUMNS)
        text = write_results(inputs.folder, results, Page("Ground truth", inputs.configuration), {})
        first = [row["mcc"] for row in rows if row["unit"] == rows[0]["unit"]]
        return text, sum(first) / len(first)

    @property
    def _choices(self) -> dict[str, Any]:
        """All that differs from the recipe of a kind."""
        return {"training.initial_atoms.source": self.initial_atoms, **(self.changes or {})}

    def _part(self, law: Law, kind: str | None, inputs: StudyInputs) -> list[Row]:
        """The row of one kind of SAE on one law; of the true atoms for None."""
        name = re.sub(r"[^\w.-]+", "-", f"{law.name}-{kind or 'planted'}")
        options = (self.d_in, self.l0, self.vectors, self._choices, law.identity)
        return kept(inputs, name, options, partial(self._row, law, kind, inputs))

    def _row(self, law: Law, kind: str | None, inputs: StudyInputs) -> list[Row]:
        generator = torch.Generator().manual_seed(inputs.seed)
        train, _ = law.draw(self.vectors, generator)
        fresh, codes = law.draw(inputs.sample_sizes.measured, generator)
        if kind is None:
            most = int((codes > 0).sum(1).max())
            unit = Unit(_PLANTED, law.dictionary, law.offset, partial(_omp, law, most), signed=False, coder="OMP ≥ 0")
        else:
            chosen: Kind = next(one for one in NAMES if one == kind)
            settings = inputs.retraining
            sae = fit(
                train,
                d_sae=len(law.dictionary),
                l0=law.l0,
                kind=chosen,
                steps=settings.steps,
                batch_size=settings.batch_size,
                seed=inputs.seed,
                changes=self._choices,
            )
            unit = atoms(sae, NAMES[chosen])
        row = against_truth(unit, Truth(fresh, law.dictionary, codes))
        refuted = row.pop("contradictions_1") + row.pop("contradictions_4")
        products = (law.dictionary @ law.dictionary.T).fill_diagonal_(0)
        return [row | {"law": law.name, "mu": float(products.abs().max()), "contradictions": refuted}]


def _omp(law: Law, most: int, x: Tensor) -> Tensor:
    """Codes of non-negative OMP on the true atoms of a law, with at most so many atoms."""
    return nonnegative_omp(x - law.offset, law.dictionary, most)


def verdict(rows: Sequence[Row]) -> str:
    """Says which kind found the true atoms best, and whether any certificate was refuted.

    Args:
        rows: of the study; one of them has a number of `contradictions` each.
    """
    refuted = sum(row["contradictions"] for row in rows)
    trained = [row for row in rows if row["unit"] != _PLANTED]
    kinds = dict.fromkeys(row["unit"] for row in trained)
    means = {kind: torch.tensor([row["mcc"] for row in trained if row["unit"] == kind]).mean() for kind in kinds}
    order = ", ".join(f"{kind} {float(means[kind]):.3f}" for kind in sorted(kinds, key=lambda kind: -means[kind]))
    checked = (
        f"ERROR OF ATOMLAB: the true code refutes {refuted} certificates; please report this table."
        if refuted
        else "No certificate is refuted by a true code."
    )
    return f"Mean MCC over the laws: {order}. {checked}"
