"""Representation shift at each layer (theory.md 2): angles between activations in every metric, beside their null."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.store.moments import Moments, exact_moments
from atomlab.evaluation.provenance import describe
from atomlab.evaluation.study import StudyInputs, layers_of
from atomlab.metrics import RepresentationShift
from atomlab.ranges import Count, Index
from atomlab.report import Column, Page, Results, Row, angles_figure, attempt, layers_figure, write_results
from atomlab.theory import Geometry, gaussian_surrogate, geometries

_COLUMNS = (
    Column("unit", "metric", "Where angles are measured, and what the metric was estimated on."),
    Column("layer", "layer", "Counted from 0.", "d"),
    Column("mean", "mean angle", "Mean over pairs of distinct held-out vectors, in degrees.", ".2f"),
    Column("sd", "sd", "Standard deviation over pairs.", ".2f"),
    Column("shift", "shift", "|mean − 90°|.", ".2f"),
    Column("shift_validation", "shift, validation", "The same of validation vectors, which choices go by.", ".2f"),
    Column("null_mean", "null", "The same of a Gaussian sample with the vectors' own mean and second moment.", ".2f"),
    Column("null_sd", "null sd", "Its standard deviation.", ".2f"),
    Column("samples", "vectors", "Held-out vectors.", "d", "sizes"),
    Column("pairs", "pairs", "Pairs of them.", "d", "sizes"),
    Column("shrinkage", "shrinkage", "λ of S = (C + λ tr(C)/d I)⁻¹, for the AIP.", "g", "sizes"),
)
_ACROSS = "AIP, reference corpus"
_NOTE = (
    "In sample, the atomic inner product brings the mean angle near 90° by construction (an identity, not a "
    "discovery); only a metric from other data has content, and only beyond its null."
)


@final
@dataclass(frozen=True)
class RepresentationShiftStudy:
    """The study of the angles between held-out vectors at several layers.

    Attributes:
        layers: numbers of the layers, counted from 0; None takes all.
        samples: number of held-out vectors; every pair of them is measured.
        causal: whether the causal inner product is measured too, where the site is the residual stream. It loads the
            unembedding.
    """

    reads_activations: ClassVar[bool] = True

    layers: Sequence[Index] | None = None
    samples: Count = 2048
    causal: bool = True

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]:
        """Measures the angles at each layer, and writes the results (`write_results`).

        Args:
            inputs: what the study is given.

        Returns:
            The text to print, and the objective: the mean over layers of the cross-corpus shift in the atomic inner product,
            in degrees, of validation vectors. Rows and figures are of held-out vectors.
        """
        data = inputs.data
        layers = layers_of(data, self.layers, data.model.num_layers)
        first = data.over_layers(layers)
        first.prepare_data()
        unembedding = self._unembedding(first)
        rows, drawn, missing = [], {}, []
        for layer in layers:
            found, angles = self._layer(first.at(first.hook_points.site, layer), inputs, unembedding, missing)
            rows += found
            drawn[layer] = angles
        provenance = describe(_opened(first), inputs.sample_sizes, inputs.shrinkage, inputs.seed)
        provenance["measured on"] = (
            f"Measured on {rows[0]['samples']:,} held-out vectors, {rows[0]['pairs']:,} pairs of them."
        )
        names = list(dict.fromkeys(row["unit"] for row in rows))
        middle = layers[len(layers) // 2]
        figures: dict[str, Callable[[], Any]] = {
            "Mean angle between activations a layer": lambda: layers_figure(
                layers, _series(rows, names, layers), "mean angle, degrees"
            ),
            f"Angles at layer {middle}, null dotted": partial(angles_figure, drawn[middle]),
        }
        text = write_results(
            inputs.folder,
            Results(rows, _NOTE, provenance, inputs.identity, _COLUMNS),
            Page(
                f"Representation shift of {provenance['model']}, {data.hook_points.site}",
                inputs.configuration,
                missing=missing,
            ),
            figures,
        )
        across = [row["shift_validation"] for row in rows if "shift_validation" in row]
        return text, sum(across) / len(across) if across else math.nan

    def _unembedding(self, data: ActivationDataModule) -> Tensor | None:
        if not self.causal or not data.model.is_causal or data.hook_points.site not in ("resid_pre", "resid_post"):
            return None
        return data.model.unembedding()

    def _layer(
        self, data: ActivationDataModule, inputs: StudyInputs, unembedding: Tensor | None, missing: list[str]
    ) -> tuple[list[Row], dict[str, tuple[Tensor, Tensor]]]:
        x = _opened(data).sample("test", self.samples)
        places = metrics_of(data, x, inputs.shrinkage, unembedding, missing)
        shrinkages = {name: float(used) for name, (_, used) in aip_sources(data, x, inputs.shrinkage).items()}
        observed, null = observed_and_null(x, places, inputs.seed)
        rows = []
        for name, angles in observed.items():
            found, expected = numbers(angles), numbers(null[name])
            row = {"unit": name, "layer": data.hook_points.layer} | found
            row |= {"null_mean": expected["mean"], "null_sd": expected["sd"], "samples": len(x)}
            rows.append(row | {"pairs": int(angles.histogram.sum()), "shrinkage": shrinkages.get(name)})
        for row in rows:
            if row["unit"] == _ACROSS:
                y = data.sample("validation", self.samples)
                row["shift_validation"] = numbers(_angles(y, places[_ACROSS]))["shift"]
        return rows, histograms(observed, null)


def observed_and_null(
    x: Tensor, places: Mapping[str, Geometry], seed: int
) -> tuple[dict[str, RepresentationShift], dict[str, RepresentationShift]]:
    """Measures the angles between vectors in each geometry, and those of Gaussian vectors with the same moments.

    Args:
        x: (samples, d) vectors.
        places: geometries by name.
        seed: of the Gaussian sample, which has the mean and second moment of `x` and is drawn once.

    Returns:
        The angles of the vectors and those of the Gaussian sample, by the name of the geometry.
    """
    drawn = gaussian_surrogate(x, torch.Generator().manual_seed(seed))
    observed = {name: _angles(x, geometry) for name, geometry in places.items()}
    return observed, {name: _angles(drawn, geometry) for name, geometry in places.items()}


def _angles(x: Tensor, geometry: Geometry) -> RepresentationShift:
    angles = RepresentationShift(geometry)
    angles.update(x)
    return angles


def numbers(angles: RepresentationShift) -> dict[str, float]:
    """Returns the mean, standard deviation and shift of the angles, in degrees."""
    return {name: value.item() for name, value in angles.compute().items()}


def histograms(
    observed: Mapping[str, RepresentationShift], null: Mapping[str, RepresentationShift]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Collects the histograms of angles, as `angles_figure` draws them.

    Args:
        observed: angles between the vectors, by the name of the geometry.
        null: angles between the vectors of the null, by the same names.

    Returns:
        By geometry, the number of pairs in each degree of [0°, 180°], (180,) int64, of the vectors and of their null.
    """
    return {name: (angles.histogram, null[name].histogram) for name, angles in observed.items()}


def metrics_of(
    data: ActivationDataModule, x: Tensor, shrinkage: float, unembedding: Tensor | None, missing: list[str]
) -> dict[str, Geometry]:
    """Makes the geometries in which angles are measured.

    They are the Euclidean, the centred, the Mahalanobis and the causal one, and the atomic inner product with S from the
    measured vectors, from the training part of the corpus, and from the reference corpus.

    Args:
        data: the activations, set up.
        x: (samples, d) measured vectors.
        shrinkage: λ of S.
        unembedding: (vocabulary, d) for the causal inner product; None leaves it out.
        missing: gets a sentence for each geometry that these activations do not have.

    Returns:
        The geometries by name, without those that are missing.
    """
    own = data.moments
    mine = geometries(own.mean, own.second_moment, shrinkage=shrinkage, count=own.count, unembedding=unembedding)
    names = {"euclidean": "Euclidean", "centred": "centred", "mahalanobis": "Mahalanobis", "causal": "causal"}
    makers = {name: mine[key] for key, name in names.items() if key in mine}
    for name, (moments, used) in aip_sources(data, x, shrinkage).items():
        makers[name] = geometries(moments.mean, moments.second_moment, shrinkage=used)["aip"]
    made = {
        name: attempt(f"The geometry {name} of {data.point}", partial(_made, make), missing)
        for name, make in makers.items()
    }
    return {name: geometry for name, geometry in made.items() if geometry is not None}


def _made(make: Callable[[], Geometry]) -> Geometry:
    """Makes a geometry; where that fails, the message names a remedy that exists beside `run` too, which fixes the shrinkage."""
    try:
        return make()
    except ValueError as error:
        reason = str(error).split(":")[0].strip()
        raise ValueError(
            f"{reason}, as where a LayerNorm confines the vectors to a hyperplane; `python evaluate.py "
            "experiment=representation_shift shrinkage=1e-3` of this model, without run, measures it."
        ) from error


def aip_sources(data: ActivationDataModule, x: Tensor, shrinkage: float) -> dict[str, tuple[Moments, float]]:
    """Finds what the S of each atomic inner product is made from.

    From fewer than 2·d_in vectors S is singular or nearly so, and the shrinkage is at least 1e-6.

    Args:
        data: the activations, set up.
        x: (samples, d_in) measured vectors.
        shrinkage: λ of S.

    Returns:
        Moments and shrinkage by name: of the measured vectors, of the training part and of the reference corpus.
    """
    sources = {
        "these vectors": exact_moments(x),
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


def _series(rows: Sequence[Row], names: Sequence[str], layers: Sequence[int]) -> dict[str, list[float]]:
    """Returns the mean angle at each layer by name; NaN at a layer that does not have the geometry."""

    def along(name: str, key: str) -> list[float]:
        found = {row["layer"]: row[key] for row in rows if row["unit"] == name}
        return [found.get(layer, math.nan) for layer in layers]

    series = {name: along(name, "mean") for name in names}
    return series | ({f"{_ACROSS}: null": along(_ACROSS, "null_mean")} if _ACROSS in names else {})
