"""The paper's protocol (arXiv:2509.20784) at every layer: one harvest, one TSAE for each layer, beside the published figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, final

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.controls import CONTROLS, control_cases
from atomlab.evaluation.equal_l0 import EqualL0, atoms_case
from atomlab.evaluation.option_checks import check_names
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.rows.conclusion import with_memory
from atomlab.evaluation.rows.differences import with_differences
from atomlab.evaluation.rows.firing import firing_on_training
from atomlab.evaluation.rows.measure import on_validation
from atomlab.evaluation.saved_sae import save_trained
from atomlab.evaluation.study import StudyInputs, kept, layers_of
from atomlab.interop.locate import load_at_site, locate
from atomlab.ranges import Index
from atomlab.report import COLUMNS, UNIT, Column, Page, Results, Row, layers_figure, write_results
from atomlab.training.build import reference_metric
from atomlab.units import CODERS

_LAYERS = Column("layers", "layers", "Layers that the row is a mean of.", "d")
_ALSO = ("l0_train", "stability_pairwise_train", "stability_pairwise_random", "stability_per_atom_random")
_SHOWN = tuple(
    column
    for column in COLUMNS[1:]
    if column.key in _ALSO or column.group == "sizes" or (column.closing and column.key != "restricted_isometry_k")
)
_COLUMNS = (UNIT, _LAYERS, *_SHOWN)
_BY_LAYER = (
    UNIT,
    Column("layer", "layer", "Counted from 0.", "d"),
    *(column for column in _SHOWN if column.group != "sizes"),
)


class Published(NamedTuple):
    """What the paper says of its atoms of one model, in sample as far as it says.

    Attributes:
        layers: number of layers, from the first.
        r2: mean R² of the atoms.
        stability: mean q* of the atoms.
    """

    layers: int
    r2: float
    stability: float


PUBLISHED = {
    "google/gemma-2-2b": Published(26, 0.9992, 0.9974),
    "google/gemma-2-9b": Published(42, 0.9993, 0.9987),
    "meta-llama/Llama-3.1-8B": Published(30, 0.9985, 0.9995),
}
_FEATURES, _NEURONS = (0.488, 0.682), (1.0, 0.005)  # published R² and q*: Gemma Scope and Llama Scope; neurons
_BESIDE = (
    Column("unit", "units", "What was measured, on which model."),
    Column("source", "source", "Ours are means over the layers of this run."),
    Column(
        "r2_train", "R²", "Euclidean; ours on training vectors, the published ones as far as the paper says.", ".2%"
    ),
    Column("r2", "R² held out", "Not published.", ".2%"),
    Column(
        "stability_pairwise_train", "q*", "Ours over pairs of atoms (the paper's reading), training vectors.", ".2%"
    ),
    Column("stability_pairwise", "q* held out", "Not published.", ".2%"),
    Column(
        "stability_pairwise_random", "q* held out, random", "That of random atoms at the same L0; not published.", ".2%"
    ),
)


@final
@dataclass(frozen=True)
class PaperTable:
    """The study of atoms, neurons and controls at every layer, with their means over layers.

    Attributes:
        layers: numbers of the layers, counted from 0. None takes the paper's for its models (30 of the 32 of
            Llama-3.1-8B), and all layers of any other model.
        controls: names of `atomlab.evaluation.controls.CONTROLS`; `gaussian` trains a second TSAE for each layer.
        coders: names of `atomlab.units.CODERS`: how atoms, controls and imported SAEs are coded beside the atoms' own code.
        features: imported SAEs by the name of their row; `{layer}` in a path stands for the number of the layer.
    """

    reads_activations: ClassVar[bool] = True

    layers: Sequence[Index] | None = None
    controls: Sequence[str] = ("data", "k_means", "random")
    coders: Sequence[str] = ("threshold", "threshold_pursuit", "stepwise_pursuit", "omp")
    features: Mapping[str, str] | None = None

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]:
        """Trains and measures a TSAE at each layer, and writes the results (`write_results`).

        Finished layers are kept (`kept`), so that a stopped study goes on, and layers may be added to a finished one. The
        TSAE of each layer is saved in sae/layer-<number>. results.json has a row for each unit and layer, and the means.

        Args:
            inputs: what the study is given.

        Returns:
            The text to print, and the objective: the atoms' mean R² in the S-norm on validation vectors.

        Raises:
            FileNotFoundError, ValueError: an unknown control or layer, an imported SAE that does not fit its layer, or a layer
                whose reference corpus gives no metric S. Nothing has been trained then.

        Cost: one training for each layer; the memory of the activations of one layer.
        """
        check_names("study.controls", self.controls, CONTROLS)
        check_names("study.coders", self.coders, CODERS)
        known = PUBLISHED.get(inputs.data.model.name)
        layers = layers_of(inputs.data, self.layers, known.layers if known else inputs.data.model.num_layers)
        first = inputs.data.over_layers(layers)
        for layer in layers:
            for path in (self.features or {}).values():
                locate(path.format(layer=layer), first.at(first.hook_points.site, layer))
        first.prepare_data()
        check_metrics(first, layers, inputs.shrinkage)
        rows = [
            row
            for data in (first.at(first.hook_points.site, layer) for layer in layers)
            for row in kept(
                inputs,
                f"layer-{data.hook_points.layer}",
                (self.controls, self.coders, self.features),
                partial(self._layer, data, inputs),
            )
        ]
        means = mean_rows(rows)
        last = first.at(first.hook_points.site, layers[-1])
        last.setup()
        return self._write(rows, means, layers, last, inputs), means[0]["r2_s_validation"]

    def _layer(self, data: ActivationDataModule, inputs: StudyInputs) -> list[Row]:
        data.setup()
        metric, sample_sizes = reference_metric(data, inputs.shrinkage), inputs.sample_sizes
        sae = inputs.retraining.train(data, seed=inputs.seed)
        place = inputs.folder / "sae" / f"layer-{data.hook_points.layer}"
        save_trained(sae, place, data, inputs.identity, sample_sizes.measured)
        own = atoms_case(sae, data, sample_sizes.measured, trained_on(data))
        equal = EqualL0.of(own, data, metric, sample_sizes.measured)
        missing: list[str] = []
        imported = {
            name: load_at_site(path.format(layer=data.hook_points.layer), data, metric)
            for name, path in (self.features or {}).items()
        }
        cases = equal.trained_cases(sae, imported, self.coders, missing)
        cases += control_cases(self.controls, self.coders, equal, data, inputs.retraining, sample_sizes, missing)
        measured = [case.measured(metric, sample_sizes) for case in cases]
        measured[0][0].update(on_validation(own.unit, data, metric, sample_sizes))
        for case, (row, _) in zip(cases, measured, strict=True):
            row.update(firing_on_training(case.unit, data, sample_sizes))
        rows = with_memory(with_differences(measured, own.test.count))
        return [{"layer": data.hook_points.layer} | row | metric_of(data, inputs.shrinkage) for row in rows]

    def _write(
        self, rows: list[Row], means: list[Row], layers: list[int], data: ActivationDataModule, inputs: StudyInputs
    ) -> str:
        provenance = describe(data, inputs.sample_sizes, inputs.shrinkage, inputs.seed) | {
            "layers": f"{layers}, from 0"
        }
        results = Results(
            means,
            f"{_verdict(means, data)} {layers_won(rows)} {provenance['corpus']}; site {data.hook_points.site}, layers {layers}.",
            provenance,
            inputs.identity,
            _COLUMNS,
            records={"rows": rows, "means": means},
        )
        page = Page(
            f"The paper's protocol on {provenance['model']}, {data.hook_points.site}, {len(layers)} layers",
            inputs.configuration,
            tables={
                "Beside the published figures": (beside_published(means, data.model.title), _BESIDE),
                "Layer by layer": (rows, _BY_LAYER),
            },
            notes=CONTROLS,
        )
        return write_results(inputs.folder, results, page, _figures(rows, layers))


def check_metrics(data: ActivationDataModule, layers: Sequence[int], shrinkage: float) -> None:
    """Checks that the reference corpus gives a metric S at every layer, before the first of them is trained on.

    Args:
        data: harvested at all of the layers.
        layers: their numbers.
        shrinkage: λ of the metric.

    Raises:
        ValueError: the second moment of some layers has no inverse; all of them are named.

    Cost: one eigendecomposition for each layer, O(d_in³).
    """
    refused: dict[int, str] = {}
    for layer in layers:
        own = data.at(data.hook_points.site, layer)
        own.setup()
        try:
            reference_metric(own, shrinkage)
        except ValueError as error:
            refused[layer] = str(error)
    if refused:
        raise ValueError(
            f"No metric S at {'layer' if len(refused) == 1 else 'layers'} {', '.join(map(str, refused))} of "
            f"{data.hook_points.site}, and nothing was trained: {next(iter(refused.values()))} Or leave such layers out: "
            f"study.layers={[layer for layer in layers if layer not in refused]}"
        )


def beside_published(means: Sequence[Row], model: str) -> list[Row]:
    """Puts the units of this run beside the figures that the paper prints.

    Args:
        means: a row for each unit, as `mean_rows` gives it.
        model: name of the model, for the names of the rows.

    Returns:
        The rows of this run, then the published ones, whose only numbers are `r2_train` and `stability_pairwise_train`;
        `source` says which they are.
    """
    published = {f"atoms, {name}, {known.layers} layers": known[1:] for name, known in PUBLISHED.items()}
    published |= {"features (Gemma Scope, Llama Scope)": _FEATURES, "neurons": _NEURONS}
    return [
        *(row | {"unit": f"{row['unit']}, {model}, {row['layers']} layers", "source": "this run"} for row in means),
        *(
            {"unit": unit, "source": "published", "r2_train": r2, "stability_pairwise_train": stability}
            for unit, (r2, stability) in published.items()
        ),
    ]


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Averages every number of each unit over the layers.

    A number that is missing at a layer (None or NaN) is left out of its mean. Whole numbers and texts that are the same
    at every layer stay as they are.

    Args:
        rows: a row for each unit and layer.

    Returns:
        A row for each unit, with the number of its layers (`layers`). Lists, mappings, and texts that differ between
        the layers are left out.
    """
    means = []
    for name in dict.fromkeys(row["unit"] for row in rows):
        mine = [row for row in rows if row["unit"] == name]
        mean: Row = {"unit": name, "layers": len(mine)}
        for key, value in mine[0].items():
            if key in ("unit", "layer"):
                continue
            if isinstance(value, int | str) and all(row.get(key) == value for row in mine):
                mean[key] = value
            elif isinstance(value, int | float) or value is None:
                known = [row[key] for row in mine if row.get(key) is not None]
                found = torch.tensor(known, dtype=torch.float64)
                mean[key] = float(found.nanmean()) if len(found) else None
        means.append(mean)
    return means


def _verdict(means: Sequence[Row], data: ActivationDataModule) -> str:
    ours, known = means[0], PUBLISHED.get(data.model.name)
    published = (
        f"Published for this model's atoms: R² {known.r2:.2%}, q* {known.stability:.2%}."
        if known
        else "The paper has no figures for this model (its own: R² 99.9%, q* 99.7% to 99.95%)."
    )
    return (
        f"Atoms, mean over {ours['layers']} layers: R² {ours['r2_train']:.2%} in sample and {ours['r2']:.2%} held out "
        f"(S-norm {ours['r2_s_train']:.2%} and {ours['r2_s']:.2%}), q* over pairs "
        f"{ours['stability_pairwise_train']:.2%} and {ours['stability_pairwise']:.2%}, at L0 {ours['l0_train']:.1f} and "
        f"{ours['l0']:.1f}. {published} "
        f"Published for features (Gemma Scope, Llama Scope): R² {_FEATURES[0]:.1%}, q* {_FEATURES[1]:.1%}."
    )


def layers_won(rows: Sequence[Row]) -> str:
    """Says at how many layers codes of the atoms explain more than every control that they are compared with.

    Args:
        rows: a row for each unit and layer, with the differences of `with_differences`.

    Returns:
        A sentence for each coder of the atoms; nothing without controls. A layer counts where the 95% interval of every
        difference lies above 0.
    """
    sentences = []
    for name in dict.fromkeys(row["against"] for row in rows if "against" in row):
        compared = [row for row in rows if row.get("against") == name]
        layers = dict.fromkeys(row["layer"] for row in compared)
        won = {
            norm: sum(
                all((row[f"{norm}_difference"]["low"] or 0.0) > 0 for row in compared if row["layer"] == layer)
                for layer in layers
            )
            for norm in ("r2", "r2_s")
        }
        sentences.append(
            f"{name}: more than every control compared with them at {won['r2']} of {len(layers)} layers, in the S-norm at "
            f"{won['r2_s']}."
        )
    return " ".join(sentences)


def _figures(rows: Sequence[Row], layers: Sequence[int]) -> dict[str, Callable[[], Any]]:
    names = list(dict.fromkeys(row["unit"] for row in rows if row["unit"] != "neurons"))

    def drawn(label: str, key: str) -> Any:
        series = {name: [row[key] for row in rows if row["unit"] == name] for name in names}
        return layers_figure(layers, series, label)

    return {
        f"{label} a layer, {split}": partial(drawn, label, key)
        for label, split, key in (
            ("R²", "training vectors", "r2_train"),
            ("R²", "held out", "r2"),
            ("R² in the S-norm", "held out", "r2_s"),
            ("q* over pairs", "held out", "stability_pairwise"),
        )
    }
