"""The paper's protocol (arXiv:2509.20784) over a model's layers: one harvest, a TSAE a layer, the published figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, final

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.bench import Bench
from atomlab.evaluation.controls import CONTROLS, Case, control_cases
from atomlab.evaluation.parts import kept
from atomlab.evaluation.provenance import describe, metric_of
from atomlab.evaluation.run import pursuit_size, reference_metric
from atomlab.evaluation.table import Row, measure
from atomlab.report import CLOSING, Column, layers_figure, write_results
from atomlab.units import atoms, neurons

_LAYERS = Column("layers", "layers", "Layers that the row is a mean of.", "d")
_COLUMNS = (CLOSING[0], _LAYERS, *(column for column in CLOSING[1:] if column.key != "restricted_isometry_k"))


class Published(NamedTuple):
    """Of the paper: layers (from 0), R² and q* of its atoms, as it prints them; in sample, as far as it says."""

    layers: int
    r2: str
    stability: str


PUBLISHED = {
    "google/gemma-2-2b": Published(26, "99.92%", "99.74%"),
    "google/gemma-2-9b": Published(42, "99.93%", "99.87%"),
    "meta-llama/Llama-3.1-8B": Published(30, "99.85%", "99.95%"),
}
_OTHERS = "Published for features (Gemma Scope, Llama Scope): R² 48.8%, q* 68.2%; for neurons: 100%, 0.5%."


@final
@dataclass(frozen=True)
class PaperTable:
    """Atoms, neurons and controls at every layer, and their means over layers.

    Args:
        layers: counted from 0; None: the paper's for its models (Llama3.1-8B: 30 of 32), all of any other.
        controls: names of `atomlab.evaluation.controls.CONTROLS`; `gaussian` trains a second TSAE a layer.
    """

    layers: Sequence[int] | None = None
    controls: Sequence[str] = ("data", "k_means", "random")

    def __call__(self, bench: Bench) -> tuple[str, float]:
        """Writes `write_results` (results.json has a row a unit and layer, and the means); returns its text and the
        atoms' mean held-out R² in the S-norm. Time: a TSAE a layer; memory: one layer's activations.

        Finished layers are kept (`kept`), and layers may be added to a finished study.
        """
        layers = self._layers(bench.data)
        first = bench.data.at(bench.data.site, layers[0])
        first.layers = layers
        first.prepare_data()
        rows = [
            row
            for data in (first.at(first.site, layer) for layer in layers)
            for row in kept(bench, f"layer-{data.layer}", list(self.controls), partial(self._layer, data, bench))
        ]
        means = mean_rows(rows)
        last = first.at(first.site, layers[-1])
        last.setup()
        return self._write(rows, means, layers, last, bench), means[0]["r2_test_s"]

    def _layers(self, data: ActivationDataModule) -> list[int]:
        known = PUBLISHED.get(data.model.name)
        count = data.model.num_layers if known is None else known.layers
        return list(range(count)) if self.layers is None else list(self.layers)

    def _layer(self, data: ActivationDataModule, bench: Bench) -> list[Row]:
        data.setup()
        metric, protocol = reference_metric(data, bench.shrinkage), bench.protocol
        sae = bench.recipe.train(data, seed=bench.seed)
        train, test = data.sample("train", protocol.samples), data.sample("test", protocol.samples)
        cases = [Case(unit, train, test) for unit in (atoms(sae), neurons(data.d_in))]
        rows = [measure(case.unit, case.train, case.test, metric, protocol) for case in cases]
        k = pursuit_size(rows[0]["l0"], data.d_in)
        controls = control_cases(self.controls, sae.d_sae, k, cases[0], data, metric, bench.recipe, protocol)
        rows += [measure(case.unit, case.train, case.test, metric, protocol) for case in controls]
        return [{"layer": data.layer} | row | metric_of(data, bench.shrinkage) for row in rows]

    def _write(
        self, rows: list[Row], means: list[Row], layers: list[int], data: ActivationDataModule, bench: Bench
    ) -> str:
        provenance = describe(data, bench.protocol, bench.shrinkage, bench.seed) | {"layers": f"{layers}, from 0"}
        return write_results(
            bench.folder,
            title=f"The paper's protocol on {provenance['model']}, {data.site}, {len(layers)} layers",
            rows=means,
            columns=_COLUMNS,
            records={"rows": rows, "means": means},
            figures=_figures(rows, layers),
            configuration=bench.configuration,
            provenance=provenance,
            conclusion=f"{_verdict(means, data)} {provenance['corpus']}; site {data.site}, layers {layers}.",
            notes=CONTROLS,
        )


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Mean over layers of every number of each unit; what is missing at a layer (None, NaN) is left out of its mean."""
    means = []
    for name in dict.fromkeys(row["unit"] for row in rows):
        mine = [row for row in rows if row["unit"] == name]
        mean: Row = {"unit": name, "layers": len(mine)}
        for key, value in mine[0].items():
            if isinstance(value, float) or value is None:
                found = torch.tensor([row[key] for row in mine if row[key] is not None], dtype=torch.float64)
                mean[key] = float(found.nanmean()) if len(found) else None
        means.append(mean)
    return means


def _verdict(means: Sequence[Row], data: ActivationDataModule) -> str:
    ours, known = means[0], PUBLISHED.get(data.model.name)
    published = (
        f"Published for this model's atoms: R² {known.r2}, q* {known.stability}."
        if known
        else "The paper has no figures for this model (its own: R² 99.9%, q* 99.7% to 99.95%)."
    )
    return (
        f"Atoms, mean over {ours['layers']} layers: R² {ours['r2_train']:.2%} in sample and {ours['r2_test']:.2%} held out "
        f"(S-norm {ours['r2_train_s']:.2%} and {ours['r2_test_s']:.2%}), q* {ours['stability_pairwise']:.2%} over pairs "
        f"and {ours['stability_per_atom']:.2%} over atoms, at L0 {ours['l0']:.1f}. {published} {_OTHERS}"
    )


def _figures(rows: Sequence[Row], layers: Sequence[int]) -> dict:
    names = list(dict.fromkeys(row["unit"] for row in rows if row["unit"] != "neurons"))

    def series(key: str, name: str) -> list[float]:
        return [row[key] for row in rows if row["unit"] == name]

    return {
        f"{label} a layer, {split}": layers_figure(layers, {name: series(key, name) for name in names}, label)
        for label, split, key in (
            ("R²", "training vectors", "r2_train"),
            ("R²", "held out", "r2_test"),
            ("R² in the S-norm", "held out", "r2_test_s"),
            ("q* over pairs", "held out", "stability_pairwise"),
        )
    }
