"""One measuring stack: a validation's dashboard and a table's row on the validation vectors give one value a name."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from atomlab.activations.batches.shuffle import RandomBatches
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation import StudyInputs, measure
from atomlab.evaluation.rows.certify import certify
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import on_validation
from atomlab.groups import ALONE, Axis
from atomlab.metrics.by_name import flat
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct
from atomlab.training.build import reference_metric
from atomlab.training.validation import Measurement
from atomlab.units import atoms

MEASURED, CERTIFIED, SUPPORTS, SEED = 131, 37, 5, 4  # odd, so that two processes have unequal shares
SIZES = SampleSizes(
    measured=MEASURED, certified=CERTIFIED, dashboard=CERTIFIED, solved=8, supports=SUPPORTS, batch=50, seed=SEED
)
OF_RANDOM_CODES = {f"certified_level_{level}_random" for level in ("1", "2a", "2b", "3", "4")}


@pytest.fixture
def trained(inputs: StudyInputs) -> ThresholdSAE:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        sae = inputs.retraining.train(inputs.data, seed=0)
    with torch.no_grad():
        sae.threshold *= 1.1  # few latents a vector, so that some codes are certified and some are not
    return sae


def dashboard(
    sae: ThresholdSAE, metric: AtomicInnerProduct, batches: list[torch.Tensor], data: Axis = ALONE.data
) -> dict[str, float]:
    found = Measurement(sae, metric, SIZES, null=True, data=data)
    for batch in batches:
        found.update(batch)
    shares = found.of_atoms()["log10_firing"].exp2()  # finite where an atom fires on nothing
    return found.values() | {f"firing of atom {number}": share for number, share in enumerate(shares.tolist())}


def test_every_name_of_the_dashboard_has_the_value_that_it_has_in_a_row(
    inputs: StudyInputs, trained: ThresholdSAE
) -> None:
    data: ActivationDataModule = inputs.data
    metric = reference_metric(data, inputs.shrinkage)
    found = dashboard(trained, metric, list(data.val_dataloader()))
    assert len(data.rows["validation"]) > MEASURED  # the sample ends within a batch
    vectors, unit = data.sample("validation", MEASURED), atoms(trained)
    held_out = HeldOut.independent(vectors)
    row = certify(unit, measure(unit, vectors, held_out, metric, SIZES)[0], vectors, held_out, metric, SIZES)
    table = flat({name: value for name, value in row.items() if isinstance(value, float | int | dict)})
    firings = {name for name in found if name.startswith("firing of atom")}
    assert found.keys() - table.keys() == {"dead", "single_sample"} | OF_RANDOM_CODES | firings
    for name in found.keys() & table.keys():
        # Codes are computed in batches of other shapes: float32 sums of 16 products, off by up to 18 · 2⁻²⁴.
        assert table[name] == pytest.approx(found[name], rel=2e-6), name
    for name in table.keys() - {"samples_train"}:  # and so do the row's names of the training vectors, here the same
        if name.endswith("_train"):
            assert table[name] == pytest.approx(found[name.removesuffix("_train")], rel=2e-6), name
    r2_s = on_validation(unit, data, metric, SIZES)["r2_s_validation"]
    assert r2_s == pytest.approx(found["r2_s"], rel=2e-6)
    assert 0 < found["certified_level_3"] < found["certified_level_4"]  # numbers that can differ
    assert found["restricted_isometry_k_low"] < found["restricted_isometry_k_high"]


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    made = torch.load(Path(folder) / "made.pt", weights_only=False)
    batches = RandomBatches(len(made["rows"]), 64, rank=rank, world_size=2)
    found = dashboard(made["sae"], made["metric"], [made["rows"][batch] for batch in batches], Axis(rank, 2))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_numbers_of_one(inputs: StudyInputs, trained: ThresholdSAE, tmp_path: Path) -> None:
    rows = inputs.data.rows["validation"]
    vectors = rows[torch.arange(len(rows))]
    metric = reference_metric(inputs.data, inputs.shrinkage)
    torch.save({"rows": vectors, "sae": trained, "metric": metric}, tmp_path / "made.pt")
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one == pytest.approx(two, rel=0, abs=0)
    alone = dashboard(trained, metric, [vectors[batch] for batch in RandomBatches(len(vectors), 64)])
    assert alone.keys() == one.keys()
    for name in alone:
        assert one[name] == pytest.approx(alone[name], rel=2e-6), name
    assert 0 < alone["certified_level_4_random"] < 1  # a number that depends on the draw
