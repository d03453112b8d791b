"""What every study of evaluate.py is given, and what studies have in common."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, final

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.retraining import Retraining
from atomlab.identity import Identity, source_digest
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row, write_json


@final
@dataclass(frozen=True)
class StudyInputs:
    """All that a study may not choose itself.

    Attributes:
        data: the activations, not yet harvested.
        retraining: how the study trains a TSAE of its own.
        sample_sizes: how many vectors, supports and tokens its numbers are measured on.
        folder: the folder that its files go to.
        seed: seed of the run.
        configuration: the configuration as YAML, for the report.
        setting: everything that its numbers depend on beside its own options, as text.
        identity: the record (`atomlab.identity`) of the run that is measured, or of a TSAE that the study trains.
        run: the folder of the run that is measured; None where the study trains its TSAEs itself.
    """

    data: ActivationDataModule
    retraining: Retraining
    sample_sizes: SampleSizes
    folder: Path
    seed: int
    configuration: str
    setting: str
    identity: Identity
    run: Path | None = None

    @property
    def shrinkage(self) -> float:
        """λ of the metric S."""
        return self.retraining.shrinkage


class Study(Protocol):
    """A study of evaluate.py: a class in `studies`, named in an option file of conf/study/.

    A call writes the study's files into `inputs.folder`, and returns the text to print and the objective of a sweep.
    `reads_activations` says whether it does anything with `inputs.data`; where it does not, neither the language model nor
    the corpora need be there, and its record of identity names none.
    """

    reads_activations: ClassVar[bool]

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]: ...


def layers_of(data: ActivationDataModule, layers: Sequence[int] | None, all_layers: int) -> list[int]:
    """Finds which layers a study over layers measures.

    Args:
        data: the activations, whose site must exist at each layer.
        layers: numbers of the layers, counted from 0; None takes the first `all_layers`.
        all_layers: how many layers to take where none are named.

    Returns:
        Numbers of the layers, counted from 0, in the given order.

    Raises:
        ValueError: no list of layers, an empty one, or a layer that the model does not have.
    """
    if layers is None:
        return list(range(all_layers))
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"study.layers={layers} names no layer: give a list such as [0,5], or null for all.")
    for layer in layers:
        _ = data.at(data.hook_points.site, layer).point  # raises where there is no such layer
    return list(layers)


def kept(inputs: StudyInputs, name: str, options: object, compute: Callable[[], list[Row]]) -> list[Row]:
    """Returns the rows of one part of a study, and computes them only if they are not kept in the study's folder.

    A part is a file `<folder>/parts/<name>.json` with the digest of all that its rows depend on: the source files, the
    setting and the options. If one of these has changed, the rows are computed again. A stopped study goes on when its
    folder is given again (`hydra.run.dir=...`).

    Args:
        inputs: inputs of the study. Its `setting` is all that rows depend on beside `options`.
        name: name of the part, which is also the name of its file.
        options: the options of the study that this part depends on.
        compute: makes the rows.

    Returns:
        The rows as they read back from JSON, in which NaN is None.

    Raises:
        OSError: the folder cannot be written.
    """
    file = inputs.folder / "parts" / f"{name}.json"
    key = hashlib.sha256(f"{source_digest()}\n{inputs.setting}\n{options!r}".encode()).hexdigest()
    if not file.exists() or json.loads(file.read_text(encoding="utf-8"))["key"] != key:
        rows = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"key": key, "rows": rows})
    return json.loads(file.read_text(encoding="utf-8"))["rows"]  # NaN is None, whether it was computed now or before
