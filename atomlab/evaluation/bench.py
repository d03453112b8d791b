"""What every study of evaluate.py works with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface
from typing import final

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.protocol import Protocol
from atomlab.evaluation.recipe import Recipe
from atomlab.identity import Identity


@final
@dataclass(frozen=True)
class Bench:
    """Data, training code and sizes; everything a study may not choose itself.

    Attributes:
        data: not yet harvested.
        recipe: how a TSAE is trained.
        protocol: sample sizes.
        folder: where files go.
        shrinkage: of S.
        seed: of the run.
        configuration: as YAML, for the report.
        setting: what every number depends on beside the study's own options, as text.
        identity: what is measured (`atomlab.identity`): of the run, or of a TSAE that the study trains.
        run: the folder of the run that is measured, if any.
    """

    data: ActivationDataModule
    recipe: Recipe
    protocol: Protocol
    folder: Path
    shrinkage: float
    seed: int
    configuration: str
    setting: str
    identity: Identity
    run: Path | None = None


class Study(Interface):
    """A study writes its files, and returns what to print and its objective."""

    def __call__(self, bench: Bench) -> tuple[str, float]: ...
