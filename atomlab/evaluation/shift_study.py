"""Representation shift per layer (theory.md 2): angles in every metric, same corpus and across, with the null."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.moments import Moments
from atomlab.evaluation.bench import Bench
from atomlab.evaluation.layers import layers_of
from atomlab.evaluation.provenance import describe
from atomlab.evaluation.table import Row
from atomlab.evaluation.vectors import moments_of
from atomlab.report import Column, angles_figure, layers_figure, write_results
from atomlab.theory import Geometry, geometries, representation_shift

_COLUMNS = (
    Column("unit", "metric", "Where angles are measured, and what the metric was estimated on."),
    Column("layer", "layer", "Counted from 0.", "d"),
    Column("mean", "mean angle", "Mean over pairs of distinct held-out vectors, in degrees.", ".2f"),
    Column("sd", "sd", "Standard deviation over pairs.", ".2f"),
    Column("shift", "shift", "|mean − 90°|.", ".2f"),
    Column("null_mean", "null", "The same of a Gaussian sample with the vectors' own mean and second moment.", ".2f"),
    Column("null_sd", "null sd", "Its standard deviation.", ".2f"),
    Column("samples", "vectors", "Held-out vectors.", "d", "sizes"),
    Column("pairs", "pairs", "Pairs of them.", "d", "sizes"),
    Column("shrinkage", "shrinkage", "λ of S = (C + λ tr(C)/d I)⁻¹, for the AIP.", "g", "sizes"),
)
_NOTE = (
    "In sample, the atomic inner product brings the mean angle near 90° by construction (an identity, not a "
    "discovery); only a metric from other data has content, and only beyond its null."
)


@final
@dataclass(frozen=True)
class RepresentationShiftStudy:
    """Angle distributions of held-out vectors at several layers.

    Args:
        layers: counted from 0; None: all.
        samples: held-out vectors; pairs are their square.
        causal: the causal inner product too, where the site is the residual stream (loads the unembedding).
    """

    layers: Sequence[int] | None = None
    samples: int = 2048
    causal: bool = True

    def __call__(self, bench: Bench) -> tuple[str, float]:
        """Writes `write_results`; returns its text and the mean cross-corpus shift in the AIP, in degrees."""
        data = bench.data
        layers = layers_of(data, self.layers, data.model.num_layers)
        first = data.at(data.site, layers[0])
        first.layers = layers
        first.prepare_data()
        unembedding = self._unembedding(first)
        rows, histograms = [], {}
        for layer in layers:
            found, angles = self._layer(first.at(first.site, layer), bench, unembedding)
            rows += found
            histograms[layer] = angles
        provenance = describe(_opened(first), bench.protocol, bench.shrinkage, bench.seed)
        provenance |= {"vectors measured": f"{rows[0]['samples']:,} held-out vectors, {rows[0]['pairs']:,} pairs"}
        names = list(dict.fromkeys(row["unit"] for row in rows))
        middle = layers[len(layers) // 2]
        figures = {
            "Mean angle between activations a layer": layers_figure(
                layers, _series(rows, names), "mean angle, degrees"
            ),
            f"Angles at layer {middle}, null dotted": angles_figure(histograms[middle]),
        }
        text = write_results(
            bench.folder,
            title=f"Representation shift of {provenance['model']}, {data.site}",
            rows=rows,
            columns=_COLUMNS,
            figures=figures,
            configuration=bench.configuration,
            provenance=provenance,
            conclusion=_NOTE,
        )
        across = [row["shift"] for row in rows if row["unit"] == "AIP, reference corpus"]
        return text, sum(across) / len(across)

    def _unembedding(self, data: ActivationDataModule) -> Tensor | None:
        if not self.causal or not data.model.is_causal or data.site not in ("resid_pre", "resid_post"):
            return None
        return data.model.unembedding()

    def _layer(
        self, data: ActivationDataModule, bench: Bench, unembedding: Tensor | None
    ) -> tuple[list[Row], dict[str, tuple[Tensor, Tensor]]]:
        x = _opened(data).sample("test", self.samples)
        places = metrics_of(data, x, bench.shrinkage, unembedding)
        shrinkages = {name: float(used) for name, (_, used) in aip_sources(data, x, bench.shrinkage).items()}
        generator = torch.Generator().manual_seed(bench.seed)
        found = representation_shift(x, places, generator=generator)
        rows = [
            {
                "unit": name,
                "layer": data.layer,
                "mean": shift.observed.mean,
                "sd": shift.observed.sd,
                "shift": shift.observed.shift,
                "null_mean": shift.null.mean,
                "null_sd": shift.null.sd,
                "samples": len(x),
                "pairs": shift.observed.count,
                "shrinkage": shrinkages.get(name),
            }
            for name, shift in found.items()
        ]
        return rows, {name: (shift.observed.histogram, shift.null.histogram) for name, shift in found.items()}


def metrics_of(
    data: ActivationDataModule, x: Tensor, shrinkage: float, unembedding: Tensor | None
) -> dict[str, Geometry]:
    """Euclidean, centred, Mahalanobis and causal, and the AIP with S from the measured vectors, from the corpus'
    training part and from the reference corpus.
    """
    own = data.moments
    mine = geometries(own.mean, own.second_moment, shrinkage=shrinkage, count=own.count, unembedding=unembedding)
    found = {"Euclidean": mine["euclidean"], "centred": mine["centred"], "Mahalanobis": mine["mahalanobis"]}
    if "causal" in mine:
        found["causal"] = mine["causal"]
    for name, (moments, used) in aip_sources(data, x, shrinkage).items():
        found[name] = geometries(moments.mean, moments.second_moment, shrinkage=used)["aip"]
    return found


def aip_sources(data: ActivationDataModule, x: Tensor, shrinkage: float) -> dict[str, tuple[Moments, float]]:
    """Whose second moment gives the S of each AIP, and its shrinkage: at least 1e-6 from fewer than 2·d_in vectors, of
    which S would be (nearly) singular.
    """
    sources = {
        "these vectors": moments_of(x),
        "training part": data.moments,
        "reference corpus": data.reference_moments,
    }
    return {
        f"AIP, {name}": (moments, max(shrinkage, 1e-6) if moments.count < 2 * x.shape[1] else shrinkage)
        for name, moments in sources.items()
    }


def _opened(data: ActivationDataModule) -> ActivationDataModule:
    data.setup()
    return data


def _series(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[float]]:
    series = {name: [row["mean"] for row in rows if row["unit"] == name] for name in names}
    null = [row["null_mean"] for row in rows if row["unit"] == "AIP, reference corpus"]
    return series | {"AIP, reference corpus: null": null}
