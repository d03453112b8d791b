"""Processes that share a dictionary train as one process that has it whole: over 2, 3 and 4 of them, evenly or not, and over
2 x 2 with replicas that see other data. One spawn of four processes for all of it."""

import json
import os
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file, save_file

from atomlab import load_sae, save_sae
from atomlab.groups import ALONE, Groups
from atomlab.interop.checkpoint import load_checkpoint, read_checkpoint, read_progress
from atomlab.interop.export.shards import _put_together, save_shared_sae
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import Incoherence, ThresholdSAE
from atomlab.training.cost_model import StepSizes, step_cost
from atomlab.training.guards import Guards
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.module import SAEModule
from atomlab.training.recipe import Revival
from atomlab.training.shard_measurement import ShardMeasurement
from atomlab.training.validation import Measurement
from tests.training.shards import BATCH, D_IN, D_SAE, RECIPE, STEPS, Losses, X, fit, module, strategy, whole
from tests.training.together import free_port, together

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers


class Way(NamedTuple):
    processes: int
    latents: int | None
    steps: int = STEPS
    kind: str = "clipped"
    resumes: str | None = None
    done: int = 0  # steps of the checkpoint that it goes on from


HALF, BEST = ("checkpoints 4/previous.ckpt", STEPS // 2), ("checkpoints best/best.ckpt", 8)
WAYS = {
    "2": Way(2, 2), "3": Way(3, 3), "4": Way(4, 4), "2x2": Way(4, 2), "sparse": Way(3, 3, kind="sparse"),
    "ddp": Way(2, None, 200, "long"), "best": Way(2, 2, 12, "validated"),
    "skips 2": Way(2, 2, kind="skips"), "skips 2x2": Way(4, 2, kind="skips"), "skips ddp": Way(2, None, kind="skips"),
    "4 to 1": Way(1, 1, STEPS, "clipped", *HALF), "4 to 2": Way(2, 2, STEPS, "clipped", *HALF),
    "4 to 3": Way(3, 3, STEPS, "clipped", *HALF), "best to 1": Way(1, 1, 12, "validated", *BEST),
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "clipped": {"gradient_clip_val": 0.3},
    "sparse": {},
    "long": {},
    "validated": {"limit_val_batches": 1, "val_check_interval": 4},
    "skips": {"broken": (100, 500)},  # each in the batch of one process of the data
}
MEASURED = SampleSizes(measured=101, dashboard=10)  # uneven over two processes of data
QUIET_STEP = replace(RECIPE, revival=Revival(200), incoherence=Incoherence(0.0))


class Scores(Callback):
    """Says that the second of three validations is the best one, before `LastCheckpoint` looks."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.validated = (trainer.global_step, (1.0, 3.0, 2.0)[trainer.global_step // 4 - 1])

    on_validation_end = on_validation_epoch_end


class Broken(Callback):
    """Makes one gradient of one latent NaN after step 7, in the process that has the latent."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        own = D_SAE - 1 - pl_module.sae.shard.first
        if trainer.global_step == 7 and 0 <= own < len(pl_module.sae.b_enc):
            pl_module.sae.b_enc.grad[own] = torch.nan


def callbacks_of(kind: str) -> list[Callback]:
    return [Scores(), *([Broken(), Guards(skip=20)] if kind == "skips" else [])]


def left_out(found: SAEModule) -> int:
    return sum(callback.skipped for callback in found.trainer.callbacks if isinstance(callback, Guards))


def made(kind: str, groups: Groups) -> SAEModule:
    return module(
        groups, replace(RECIPE, implementation="sparse") if kind == "sparse" else RECIPE, tied=kind != "sparse"
    )


def trained_alone(kind: str, folder: Path, steps: int) -> tuple[SAEModule, dict[str, Any]]:
    found, losses = made(kind, ALONE), Losses()
    fit(found, folder, steps, losses, *callbacks_of(kind), **KINDS[kind])
    return found, whole(found, losses) | {"left out": left_out(found)}


def work(rank: int, folder: Path, ports: dict[str, int]) -> None:
    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.float32)
    for name, way in WAYS.items():
        if rank < way.processes:
            os.environ["MASTER_PORT"] = str(ports[name])
            train(rank, folder, name, way)
            dist.destroy_process_group()
    if rank < 2:
        os.environ["MASTER_PORT"] = str(ports["bytes"])
        torch.save([bytes_a_step(rank, folder, d_sae) for d_sae in (D_SAE, 2 * D_SAE)], folder / f"bytes-{rank}.pt")


def train(rank: int, folder: Path, name: str, way: Way) -> None:
    groups, losses = Groups.of_ranks(rank, way.processes, way.latents or 1), Losses()
    found, saver = made(way.kind, groups), LastCheckpoint(str(folder / f"checkpoints {name}"), every=STEPS // 2)
    resume = None if way.resumes is None else folder / way.resumes
    savers = [] if way.latents is None else [saver]
    fit(
        found, folder, way.steps, losses, *callbacks_of(way.kind), *savers, resume=resume,
        strategy=strategy(way.latents), devices=way.processes, **KINDS[way.kind],
    )  # fmt: skip
    state: dict[str, Any] = whole(found, losses) | {"left out": left_out(found)}
    if way.latents is not None:
        shared = ShardMeasurement(found.folded(), found.atomic, MEASURED)
        for part in X.double()[found.groups.data.rank :: found.groups.data.size].split(30):
            shared.update(part)
        state |= {"values": shared.values(), "of atoms": shared.of_atoms(), "own": len(found.sae.W_dec)}
        save_shared_sae(found.folded(), folder / f"sae {name}", {"model_name": "m"})
    torch.save(state, folder / f"{name}-{rank}.pt")


def bytes_a_step(rank: int, folder: Path, d_sae: int) -> int:
    """What this process hands to collectives in the third of three steps."""
    counted: list[int] = []
    found, losses = module(Groups.of_ranks(rank, 2, 2), QUIET_STEP, d_sae=d_sae), Losses()
    reduce, gather = dist.all_reduce, dist.all_gather

    def all_reduce(tensor: torch.Tensor, *words: Any, **named: Any) -> Any:
        counted.append(tensor.nbytes * (len(losses.logged) == 2))
        return reduce(tensor, *words, **named)

    def all_gather(tensors: list[torch.Tensor], tensor: torch.Tensor, *words: Any, **named: Any) -> Any:
        counted.append(tensor.nbytes * (len(losses.logged) == 2))
        return gather(tensors, tensor, *words, **named)

    with mock.patch.object(dist, "all_reduce", all_reduce), mock.patch.object(dist, "all_gather", all_gather):
        fit(found, folder, 4, losses, strategy=strategy(2), devices=2)
    return sum(counted)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    together(work, 4, folder, {name: free_port() for name in [*WAYS, "bytes"]})
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SAEModule, dict[str, Any]]]:
    steps = {way.kind: way.steps for way in WAYS.values()}
    return {kind: trained_alone(kind, tmp_path_factory.mktemp(kind), steps[kind]) for kind in KINDS}


@pytest.mark.parametrize("name", WAYS)
def test_weights_gradients_codes_and_logs_are_those_of_one_process(name: str, trained: Path, alone) -> None:
    """In float64, where only the order of sums differs: gradients differ by about 1e-16, which Adam's steps of 0.01 carry on.
    Over 200 steps of data parallelism every number that a step logs is equal to 1e-8 of itself."""
    way, expected = WAYS[name], alone[WAYS[name].kind][1]
    tolerance = {"rtol": 1e-8, "atol": 1e-8} if way.steps > STEPS else {"rtol": 0, "atol": 1e-12}
    for rank in range(way.processes):
        found = torch.load(trained / f"{name}-{rank}.pt", weights_only=True)
        assert found["left out"] == expected["left out"]
        logged = way.steps - way.done - found["left out"]
        assert len({step["train/loss"] for step in found["logged"]}) >= logged  # of every step its own
        for step, wanted in zip(found["logged"], expected["logged"][way.done :], strict=True):
            assert step == pytest.approx(
                wanted, rel=tolerance["rtol"], abs=0 if way.steps > STEPS else tolerance["atol"]
            )
        for part in set(expected) - {"logged", "left out"}:
            torch.testing.assert_close(
                found[part], expected[part], **tolerance, msg=lambda said, at=part: f"{at}: {said}"
            )
        if way.latents is not None:
            assert found["own"] == len(torch.empty(D_SAE).chunk(way.latents)[rank % way.latents])


@pytest.mark.parametrize("name", ["2", "3", "4", "2x2", "sparse"])
def test_a_validation_on_shards_has_the_numbers_of_the_whole(name: str, trained: Path, alone) -> None:
    module, _ = alone[WAYS[name].kind]
    measurement = Measurement(module.folded(), module.atomic, MEASURED)
    measurement.update(X.double()[:101])
    whole, of_atoms = measurement.values(), measurement.of_atoms()
    for rank in range(WAYS[name].processes):
        saved = torch.load(trained / f"{name}-{rank}.pt", weights_only=True)
        for key, value in of_atoms.items():
            torch.testing.assert_close(saved["of atoms"][key], value, rtol=0, atol=1e-10)
        found = saved["values"]
        assert found == pytest.approx({key: whole[key] for key in found}, rel=0, abs=1e-10)
        assert {"r2", "r2_s", "l0", "l0_median", "dead", "coherence", "coherence_median"} <= set(found)


def test_batches_that_are_nan_in_one_process_are_left_out_in_all(trained: Path, alone) -> None:
    """`skips …` above ends on the weights of one process that leaves out the same batches."""
    for way in ("skips 2", "skips 2x2", "skips ddp"):
        seen = torch.load(trained / f"{way}-1.pt", weights_only=True)
        assert 3 <= seen["left out"] == alone["skips"][1]["left out"] < STEPS / 2
        assert all(value.isfinite().all() for name, value in seen.items() if isinstance(value, torch.Tensor))


def test_the_best_of_several_validations_is_a_sharded_checkpoint_too(trained: Path) -> None:
    """`best to 1` above goes on from it."""
    folder = trained / "checkpoints best"
    steps = {file.name: read_checkpoint(file)["global_step"] for file in folder.glob("*.ckpt")}
    assert steps == {"best.ckpt": 8, "previous.ckpt": 8, "last.ckpt": 12}
    assert sum(path.is_dir() for path in folder.iterdir()) == 2  # two of the files point to one


def test_the_exchange_of_a_step_does_not_depend_on_the_number_of_latents(trained: Path) -> None:
    """The partial reconstruction; L0; two numbers of the density; active and dead latents; whether the loss is finite."""
    exchanged = step_cost(StepSizes(D_IN, D_SAE, BATCH, 4.0, latents=2)).latents_bytes  # in float32
    expected = 2 * exchanged + 8 * (1 + 2 + 2) + 4
    for rank in range(2):
        assert torch.load(trained / f"bytes-{rank}.pt", weights_only=True) == [expected, expected]


@pytest.mark.parametrize("name", ["3", "4", "2x2"])
def test_the_folder_written_shard_by_shard_is_that_of_the_whole(
    name: str, trained: Path, alone, tmp_path: Path
) -> None:
    save_sae(alone["clipped"][0].folded(), tmp_path / "sae", {"model_name": "m"})
    shared = trained / f"sae {name}"
    assert {file.name for file in shared.iterdir()} == {"cfg.json", "sae_weights.safetensors", "SHA256SUMS"}
    expected, found = (load_file(folder / "sae_weights.safetensors") for folder in (tmp_path / "sae", shared))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)
    configs = [json.loads((folder / "cfg.json").read_text()) for folder in (tmp_path / "sae", shared)]
    for config in configs:
        config["metadata"].pop("weights_sha256")
    assert configs[0] == configs[1]
    x = torch.randn(20, D_IN)
    torch.testing.assert_close(load_sae(shared)(x), load_sae(tmp_path / "sae")(x), rtol=1e-4, atol=1e-5)


def test_parts_are_put_together_without_the_whole_in_memory(tmp_path: Path) -> None:
    """Of 17 MB of weights at most two blocks of 256 rows of a part, the larger ones of 1 MB, are in memory at once."""
    d_in, own, count = 512, 1024, 4
    parts, files = [], [tmp_path / f"{number}.safetensors" for number in range(count)]
    for number, file in enumerate(files):
        drawn = torch.Generator().manual_seed(number)
        shapes = {"W_enc": (d_in, own), "W_dec": (own, d_in), "b_enc": (own,), "threshold": (own,), "b_dec": (d_in,)}
        parts.append({name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()})
        save_file(parts[-1], file)
    sae = ThresholdSAE(d_in, own * count)
    tracemalloc.start()
    _put_together(sae, files, tmp_path / "sae", {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 256 * own * 4 < peak < 3 * 256 * own * 4
    found = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    for name in ("W_dec", "b_enc", "threshold"):
        assert torch.equal(found[name], torch.cat([part[name] for part in parts]))
    assert torch.equal(found["W_enc"], torch.cat([part["W_enc"] for part in parts], 1))


def test_a_checkpoint_is_safetensors_and_json_and_gives_the_whole_sae_to_one_process(trained: Path, alone) -> None:
    folder = trained / "checkpoints 4"
    pointers = {"last.ckpt": STEPS, "previous.ckpt": STEPS // 2}
    assert {path.name for path in folder.iterdir() if path.is_file()} == set(pointers)
    for name, step in pointers.items():
        assert read_progress(folder / name)["global_step"] == step
        shards = folder / json.loads((folder / name).read_text())["folder"]
        assert {path.suffix for path in shards.iterdir()} == {".safetensors", ".json"}
        assert len(list(shards.glob("*.safetensors"))) == 4
    assert sum(path.is_dir() for path in folder.iterdir()) == 2  # as many as there are pointers
    sae, transform = load_checkpoint(folder / "last.ckpt")
    module, _ = alone["clipped"]
    torch.testing.assert_close(sae.W_dec, module.sae.W_dec.float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(sae.threshold, module.sae.threshold.float(), rtol=0, atol=1e-7)
    assert torch.equal(transform.mean, module.transform.mean.float())
