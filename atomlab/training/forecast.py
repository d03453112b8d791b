"""A forecast of a run before its first pass: its sizes, memory and time."""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import final

import torch
from lightning import Trainer

from atomlab.activations.batches.shuffle import check_batch
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.harvest.preflight import Prepared, Ranks
from atomlab.activations.model.capture import capture
from atomlab.groups import Groups
from atomlab.sae import TargetL0, ThresholdSAE, calibrate_thresholds_
from atomlab.sae.ops import DensitySwitch, objective
from atomlab.training.cost_model import ASSUMED, StepSizes, step_cost, step_seconds
from atomlab.training.recipe import Architecture

_TIMED_STEPS = 3
_TIMED_TOKENS = 2048


@final
@dataclass(frozen=True)
class Forecast:
    """The sizes of a run.

    Attributes:
        d_in: width of the activations.
        d_sae: number of latents.
        train_rows: training vectors of the corpus.
        reference_rows: vectors of the reference corpus that the metric S is from.
        model_bytes: weights of the language model that are loaded for the harvest; 0 if nothing is harvested.
        training_bytes: weights, gradients and optimiser of the TSAE in one process, without the activations of a step.
        memory_bytes: memory of the device that trains.
        step: sizes of a step, from which its cost follows (`step_cost`).
    """

    d_in: int
    d_sae: int
    train_rows: int
    reference_rows: int
    model_bytes: int
    training_bytes: float
    memory_bytes: int
    step: StepSizes


def forecast(
    data: ActivationDataModule,
    prepared: Prepared,
    trainer: Trainer,
    architecture: Architecture,
    *,
    shrinkage: float,
    l0: float,
) -> Forecast:
    """Computes the sizes of a run, and refuses a run that is certain to fail.

    Args:
        data: the activations, not yet harvested.
        prepared: what is known of them (`ActivationDataModule.prepare`).
        trainer: the trainer of the run, whose device and number of processes count.
        architecture: of the TSAE.
        shrinkage: λ of the metric S.
        l0: mean number of active latents of a vector that the training starts with.

    Returns:
        The sizes. `training_bytes` is 16 bytes for each weight of a process, without the activations of a step.

    Raises:
        ValueError: too few latents, too few training vectors for a batch, too few reference vectors for S or too few
            dimensions in them, or weights that are larger than the device's memory.
    """
    d_in = prepared.widths[data.point]
    d_sae = architecture.d_sae(d_in)
    train_rows, reference_rows = (prepared.rows[data.folder(c)]["train"] for c in (data.corpus, data.reference))
    check_batch(train_rows, data.batches.size, Groups.of(trainer).data.size)
    if reference_rows < d_in and shrinkage == 0:
        raise ValueError(
            f"The metric S needs at least d_in={d_in} vectors, and the training split of the reference corpus gives "
            f"{reference_rows}: raise activations.tokens.max_tokens, give more text, or use shrinkage=1e-3."
        )
    _check_ranks(prepared.ranks.get(data.folder(data.reference)), d_in, shrinkage, str(data.point))
    loaded = [] if prepared.loaded is None else prepared.loaded.parameters()
    model_bytes = sum(weight.numel() * weight.element_size() for weight in loaded)
    groups, matrices = Groups.of(trainer), 1 if architecture.tied else 2
    step = StepSizes(
        d_in, d_sae, data.batches.size, l0, matrices, latents=groups.latents.size, replicas=groups.data.size
    )
    training_bytes = step_cost(step).state_bytes
    if data.model.placement.device_map is None:
        _check_memory("The language model", model_bytes, _memory(data.model.device))
    memory = _memory(trainer.strategy.root_device)
    _check_memory("The training", training_bytes, memory)
    return Forecast(d_in, d_sae, train_rows, reference_rows, model_bytes, training_bytes, memory, step)


def _check_ranks(ranks: Ranks | None, d_in: int, shrinkage: float, site: str) -> None:
    """Refuses a site whose S has no inverse; says which geometry a table of this site will lack."""
    if ranks is None:
        return
    if ranks.second_moment < d_in and shrinkage == 0:
        raise ValueError(
            f"The activations at {site} span {ranks.second_moment} of d_in={d_in} dimensions in {ranks.rows:,} vectors of "
            "the reference corpus, so the metric S has no inverse: use shrinkage=1e-3, or another site."
        )
    if ranks.covariance < d_in:
        sys.stderr.write(
            f"atomlab: the activations at {site} lie in a plane of {ranks.covariance} of d_in={d_in} dimensions, so tables "
            "will leave out the Mahalanobis geometry.\n"
        )


def _check_memory(what: str, needed: float, there: int) -> None:
    if needed > there:
        raise ValueError(
            f"{what} needs at least {needed / 1e9:.3g} GB of memory, and the device has {there / 1e9:.3g} GB: use a "
            "lower sae.expansion, a smaller model, or another device; model.device_map=auto spreads a model over several."
        )


def render(sizes: Forecast, data: ActivationDataModule, prepared: Prepared, trainer: Trainer, target: float) -> str:
    """Describes a run as `dry_run=true` prints it.

    A few training steps are timed, and one short pass of the language model if it has tokens to read.

    Args:
        sizes: of the run.
        data: the activations, not yet harvested.
        prepared: what is known of them.
        trainer: the trainer of the run; the steps are timed on its device.
        target: mean L0 at which the steps are timed.

    Returns:
        Nine lines: model, site, SAE, vectors, tokens, cache, memory, time, and the cost model of a step. The times are estimates;
        that of the training is without the exchange between processes. Several processes have a tenth line: what each hands to
        the exchange.
    """
    model, tokens = data.model, sum(prepared.tokens.values())
    rows = prepared.rows[data.folder(data.corpus)]
    there = next(place for place in (data.harvests.cache_dir, *data.harvests.cache_dir.parents) if place.exists())
    harvest = tokens / _tokens_per_second(data, prepared) if tokens else 0.0
    training = data.batches.steps * _seconds_a_step(sizes, target, trainer.strategy.root_device)
    lines = {
        "model": f"{model.title} ({model.family}, {model.num_layers} layers, {str(model.dtype).removeprefix('torch.')})",
        "site": f"{data.point}, d_in {sizes.d_in:,}",
        "sae": f"d_sae {sizes.d_sae:,}",
        "vectors": ", ".join(f"{split} {count:,}" for split, count in rows.items())
        + f"; S from {sizes.reference_rows:,}",
        "tokens": f"{tokens:,} to read" if tokens else "none to read: the cache is complete",
        "cache": f"{prepared.bytes_needed / 1e9:.3g} GB to write, {shutil.disk_usage(there).free / 1e9:.3g} GB free",
        "memory": f"language model {sizes.model_bytes / 1e9:.3g} GB, training {sizes.training_bytes / 1e9:.3g} GB, "
        f"of {sizes.memory_bytes / 1e9:.3g} GB",
        "time": f"harvest about {_duration(harvest)}, training about {_duration(training)}",
        "step": _step(sizes.step),
    }
    if trainer.world_size > 1:
        cost = step_cost(sizes.step)
        lines["exchange"] = (
            f"a step and process: {cost.latents_bytes / 1e6:.3g} MB among {sizes.step.latents} that share the dictionary, "
            f"{cost.replicas_bytes / 1e6:.3g} MB among {sizes.step.replicas} that see other data"
        )
    return "\n".join(f"{name:<8} {text}" for name, text in lines.items())


def _step(sizes: StepSizes) -> str:
    """Says what the cost model says of a step, and which part would take longest on the machines that docs/scaling.md assumes."""
    cost, seconds = step_cost(sizes), step_seconds(sizes, ASSUMED)
    exchanged = cost.latents_bytes + cost.replicas_bytes
    names = {"latents": "exchange of reconstructions", "replicas": "exchange of gradients"}
    part = max(seconds, key=seconds.__getitem__)
    return (
        f"and process: {cost.product_flops + cost.entry_flops:.3g} FLOPs, {cost.traffic_bytes / 1e6:.3g} MB of memory traffic, "
        f"{exchanged / 1e6:.3g} MB exchanged; on H100s at half their speed the longest part is {names.get(part, part)}"
    )


def _tokens_per_second(data: ActivationDataModule, prepared: Prepared) -> float:
    assert prepared.loaded is not None
    context = data.harvests.rules.context
    ids = torch.zeros(max(1, _TIMED_TOKENS // context), context, dtype=torch.int64, device=data.model.device)
    since = time.perf_counter()
    for x in capture(prepared.loaded, data.points, {"input_ids": ids}).values():
        x.cpu()  # waits for the device
    return ids.numel() / (time.perf_counter() - since)


def _seconds_a_step(sizes: Forecast, target: float, device: torch.device) -> float:
    """Times training steps of one process on random vectors, with the loss and the optimiser of the default recipe, but without
    noise and incoherence term; not the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own, rows = -(-sizes.d_sae // sizes.step.latents), sizes.step.batch // sizes.step.replicas
        sae = ThresholdSAE(sizes.d_in, own).to(device)
        x = torch.randn(rows, sizes.d_in, device=device) / sizes.d_in**0.5
    target = target / sizes.step.latents
    calibrate_thresholds_(sae, x, min(target, own / 2))
    optimizer, switch, sparsity = torch.optim.Adam(sae.parameters(), fused=True), DensitySwitch(), TargetL0(1.0, target)
    since = 0.0
    for step in range(_TIMED_STEPS + 1):
        if step == 1:
            since = time.perf_counter()
        terms = objective(switch.choose(sae, x), sae, x, sparsity, None, 0.0)
        switch.observe(sae, terms.code)
        terms.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(terms.loss.detach())  # waits for the device
    return (time.perf_counter() - since) / _TIMED_STEPS


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
