"""What conf/ offers is run: 20 steps, validation, test and the closing table under every pair of two options' values.

The rows are a covering array of pairs, built greedily: each row starts with the first pair that is not covered yet, and
every other option takes the value that covers most of what is left. `trainer=ddp` has its own tests, `trainer=gpu` needs
a GPU; 16-mixed is for GPUs too, and on a CPU Lightning warns and takes bf16-mixed.
"""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything

from atomlab.activations.batches.order import Online, TrainingBatches
from atomlab.activations.corpora.local import LocalText
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.cache import HarvestOptions
from atomlab.activations.model.hook_points import HookPoints
from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.tokens.tokenise import TokenRules
from atomlab.evaluation import RunOrigin, evaluate_run
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import L0, Incoherence, Tanh, TargetL0
from atomlab.training.build import build
from atomlab.training.callbacks import DataWait, DecoderNorm, FinalCalibration, Throughput
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.recipe import Architecture, Calibration, InitialAtoms, Revival, TrainingRecipe
from atomlab.training.trainer_checks import check_trainer
from tests.training.runs import QUIET

OPTIONS: dict[str, list[Any]] = {
    "implementation": ["auto", "dense", "sparse", "screened"],
    "sparsity": [TargetL0(1.0, 5.0), L0(0.01), Tanh(0.01)],
    "inputs": ["raw", "scaled"],
    "alpha": [0.0, 0.5, 1.0],
    "initial_atoms": ["kmeans", "data", "random"],
    "noise": [0.0, 0.3],
    "incoherence": [0.0, 0.3],
    "precision": ["32-true", "bf16-mixed", "64-true"],
    "accumulate": [1, 2],
    "tied": [False, True],
    "dead_coefficient": [0.0, 1e-3],
    "online": [None, Online(buffer_rows=600, ahead=2)],
}
Pair = frozenset[tuple[str, int]]


def pairs(row: dict[str, int]) -> set[Pair]:
    return {frozenset(two) for two in itertools.combinations(row.items(), 2)}


def covering() -> Iterator[dict[str, int]]:
    """Numbers of the values of each option."""
    ranges = {name: range(len(values)) for name, values in OPTIONS.items()}
    left = [
        frozenset({(a, i), (b, j)})
        for a, b in itertools.combinations(ranges, 2)
        for i, j in itertools.product(ranges[a], ranges[b])
    ]
    while left:
        row: dict[str, int] = dict(left[0])
        for name in ranges:
            if name not in row:
                row[name] = max(ranges[name], key=lambda value: len(pairs({**row, name: value}) & set(left)))
        left = [pair for pair in left if pair not in pairs(row)]
        yield {name: row[name] for name in ranges}  # in one order, whatever the order of a set was


ROWS = list(covering())
SIZES = SampleSizes(measured=200, certified=32, solved=8, supports=16, resampled=20)


def test_the_rows_cover_every_pair() -> None:
    wanted = sum(len(a) * len(b) for a, b in itertools.combinations(OPTIONS.values(), 2))
    assert len(set().union(*map(pairs, ROWS))) == wanted
    assert len(ROWS) <= 16


@pytest.fixture(scope="module")
def tokens(tiny: Path) -> tuple[LanguageModel, LocalText, str]:
    return (
        LanguageModel(str(tiny / "model"), dtype="float32", device="cpu"),
        LocalText(str(tiny / "text.txt")),
        str(tiny / "cache"),
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row.values())))
def test_trains_validates_and_measures(
    row: dict[str, int], tokens: tuple[LanguageModel, LocalText, str], tmp_path: Path
) -> None:
    """Faults.md B1 among others: every run in bf16-mixed died in its validation."""
    options = {name: OPTIONS[name][value] for name, value in row.items()}
    precision, accumulate, online = (options.pop(name) for name in ("precision", "accumulate", "online"))
    model, text, cache = tokens
    data = ActivationDataModule(
        model,
        text,
        text,
        hook_points=HookPoints(site="resid_post", layer=1),
        tokens=TokenRules(context=32, max_tokens=6000),
        harvest=HarvestOptions(cache_dir=cache),
        batches=TrainingBatches(size=64, steps=20, online=online),
    )
    callbacks = [DecoderNorm(), FinalCalibration(), Throughput(5), DataWait(), LastCheckpoint(str(tmp_path), every=8)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(does not have many workers|sync_dist|smaller than the logging)")
        trainer = Trainer(
            precision=precision, accumulate_grad_batches=accumulate, max_steps=20, val_check_interval=1.0,
            num_sanity_val_steps=0, callbacks=callbacks, default_root_dir=tmp_path, enable_checkpointing=False,
            use_distributed_sampler=False, **QUIET,
        )  # fmt: skip
        check_trainer(trainer, trainer.max_steps)
        data.harvest(trainer)
        data.setup()
        seed_everything(0, verbose=False)
        architecture = Architecture(2.0, options["inputs"], options["alpha"], options["tied"])
        recipe = TrainingRecipe(
            options["sparsity"], Calibration(5.0, 1000), revival=Revival(200, options["dead_coefficient"]),
            initial_atoms=InitialAtoms(options["initial_atoms"], 1000, 2), noise=options["noise"],
            incoherence=Incoherence(options["incoherence"]), implementation=options["implementation"],
        )  # fmt: skip
        module = build(data, architecture, recipe, sample_sizes=SIZES)
        trainer.fit(module, data)
        validated = dict(trainer.callback_metrics)
    assert trainer.global_step == 20
    assert (
        module.sae.W_dec.dtype == module.sae.threshold.dtype == (torch.float64 if "64" in precision else torch.float32)
    )
    for state in trainer.optimizers[0].state.values():
        assert state["exp_avg"].dtype == module.sae.W_dec.dtype
    table = evaluate_run(
        module.folded().cpu(), data, SIZES, tmp_path, shrinkage=0.0, origin=RunOrigin("", {"seed": 0})
    )  # fmt: skip
    rows, text_of_table = table
    # Whatever the training's precision, the validation and the table measure the same vectors in the weights' own.
    assert float(validated["validation/r2_s"]) == pytest.approx(rows[0]["r2_s_validation"], rel=1e-5)
    assert "atoms" in text_of_table
