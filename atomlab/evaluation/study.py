"""What every study of evaluate.py works with."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.retraining import Retraining
from atomlab.evaluation.sample_sizes import SampleSizes
from atomlab.identity import Identity, source_digest
from atomlab.report import Row, write_json


@final
@dataclass(frozen=True)
class StudyInputs:
    """Data, training code and sizes; everything a study may not choose itself.

    Attributes:
        data: not yet harvested.
        retraining: how a TSAE is trained.
        sample_sizes: sample sizes.
        folder: where files go.
        seed: of the run.
        configuration: as YAML, for the report.
        setting: what every number depends on beside the study's own options, as text.
        identity: what is measured (`atomlab.identity`): of the run, or of a TSAE that the study trains.
        run: the folder of the run that is measured, if any.
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
    """A study writes its files, and returns what to print and its objective."""

    def __call__(self, inputs: StudyInputs) -> tuple[str, float]: ...


def layers_of(data: ActivationDataModule, layers: Sequence[int] | None, all_layers: int) -> list[int]:
    """The layers of a study over layers: those asked for, or the first `all_layers`.

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
    """The rows of one part: from the study's folder if a run of the same code and setting finished it, else computed
    and kept.

    Parts lie in `<folder>/parts/<name>.json` beside what they depend on; a part of other source files, settings or
    options is computed again. Resume a study by giving its folder again (`hydra.run.dir=...`).

    Args:
        inputs: of the study; its `setting` is all that parts depend on beside `options`.
        name: of the part, as a file name.
        options: of the study, as far as this part depends on them.
        compute: makes the rows.

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
