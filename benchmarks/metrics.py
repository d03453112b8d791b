"""python -m benchmarks.metrics [--json FILE]: what streaming metrics add to a validation epoch that only reconstructs.

The epoch: batches of Gaussian activations, encoded, thresholded at the stated L0 and decoded, as float32 on the CPU.
Times are medians of rounds in turn, so that a change of the machine's speed meets all alike.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from atomlab.metrics import (
    DeadLatents,
    ExplainedVariance,
    IsometryRatio,
    L0Histogram,
    UniformlyCertifiedRate,
)
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, coherence_statistics


@torch.no_grad()
def untrained(d_in: int, d_sae: int, l0: float, x: Tensor) -> ThresholdSAE:
    sae = ThresholdSAE(d_in, d_sae, bandwidth=0.1, tied=False)
    z = sae.pre_activations(x)
    sae.threshold.fill_(float(z.flatten().kthvalue(int(z.numel() * (1 - l0 / d_sae))).values))
    return sae


def metrics(sae: ThresholdSAE, metric: AtomicInnerProduct) -> MetricCollection:
    """Levels 1 and 2 share the counts of L0."""
    atoms = sae.W_dec.detach()
    known = coherence_statistics(atoms, metric)
    sizes = {
        "l0": L0Histogram(sae.d_sae),
        "level_1": UniformlyCertifiedRate(atoms, "coherence", statistics=known),
        "level_2a": UniformlyCertifiedRate(atoms, "babel_unique", statistics=known),
        "level_2b": UniformlyCertifiedRate(atoms, "babel_recovery", statistics=known),
    }
    streaming = {**sizes, "dead": DeadLatents(sae.d_sae), "isometry": IsometryRatio(atoms, metric)}
    return MetricCollection(streaming, compute_groups=[list(sizes), ["dead"], ["isometry"]])


@torch.no_grad()
def case(d_in: int, d_sae: int, l0: float, batch: int, batches: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    data = torch.randn(batches, batch, d_in)
    sae = untrained(d_in, d_sae, l0, data[0])
    metric = AtomicInnerProduct(torch.eye(d_in, dtype=torch.float64))
    streaming, r2, r2_s = metrics(sae, metric), ExplainedVariance(d_in), ExplainedVariance(d_in, metric)

    def bare(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = sae.encode(x)
        return codes, sae.decode(codes)

    def measured(x: Tensor) -> None:
        codes, x_hat = bare(x)
        r2.update(x, x_hat)
        streaming.update(codes)

    def with_s_norm(x: Tensor) -> None:
        codes, x_hat = bare(x)
        r2.update(x, x_hat)
        r2_s.update(x, x_hat)
        streaming.update(codes)

    times = [[epoch(step, data) for step in (bare, measured, with_s_norm)] for _ in range(rounds + 1)][1:]
    plain, full, s_norm = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "d_in": d_in,
        "d_sae": d_sae,
        "batch": batch,
        "l0": l0,
        "reconstruct_ms": plain / batches * 1e3,
        "measured_ms": full / batches * 1e3,
        "added": full / plain - 1,
        "added_with_s_norm_r2": s_norm / plain - 1,
    }


def epoch(step: Callable[[Tensor], object], data: Tensor) -> float:
    start = time.perf_counter()
    for x in data:
        step(x)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = [case(576, 2304, 40, 512, 8, 9), case(768, 16_384, 32, 512, 4, 5)]
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, float32, torch {torch.__version__}"
    text = json.dumps({"benchmark": "metrics", "machine": machine, "cases": cases}, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
