"""python -m benchmarks.cost_model [--repeats 40]: measured steps beside what atomlab/training/cost_model.py predicts for them.

The model needs two speeds of the machine, and both are measured here, before and after the steps of each shape: FLOP/s of a
float32 product of two 2048 x 2048 matrices, and bytes/s of the sum of two arrays of 256 MB into a third (two read, one
written). Then whole steps of Lightning's Trainer are timed, tied, sparse and in float32, as benchmarks/step.py does. Everything
runs in one process on one thread. Times are processor time, so that other programs on the same cores do not count, although
they do share the memory; medians. The prediction is the model's sum of parts, one after another.
"""

import argparse
import sys
import time
from statistics import median

import torch

from atomlab.training.cost_model import Machine, StepSizes, step_seconds
from benchmarks.step import problem, seconds, train

SHAPES = ((576, 2304, 512), (768, 12_288, 512), (768, 12_288, 2048))  # d_in, d_sae, batch
L0 = 40.0
SIDE, NUMBERS = 2048, 2**26  # of the square product, and of an array of the sum


def speeds(repeats: int) -> list[tuple[float, float]]:
    """FLOP/s of products and bytes/s of sums, measured in turns."""
    square, array = torch.randn(SIDE, SIDE), torch.ones(NUMBERS)
    into, other, total = torch.empty_like(square), torch.ones(NUMBERS), torch.empty_like(array)
    found = []
    for _ in range(repeats + 1):
        product = seconds(lambda: torch.mm(square, square, out=into), time.process_time)
        summed = seconds(lambda: torch.add(array, other, out=total), time.process_time)
        found.append((2 * SIDE**3 / product, 3 * total.nbytes / summed))
    return found[1:]  # the first round warms up


def line(d_in: int, d_sae: int, batch: int, repeats: int) -> str:
    """A row of the table: the machine's speeds, the parts that the model predicts, and the measured step."""
    found = speeds(repeats // 4)
    sae, x = problem(d_in, d_sae, batch, L0, "cpu", tied=True)
    _, step = train(sae, x, L0, "sparse", repeats, time.process_time)
    found += speeds(repeats // 4)
    flops, memory = (median(values) for values in zip(*found, strict=True))
    parts = step_seconds(StepSizes(d_in, d_sae, batch, L0), Machine(flops, memory, float("inf")))
    predicted = sum(parts.values())
    return (
        f"| {d_in}, {d_sae:,}, {batch:,} | {flops / 1e9:.0f} GFLOP/s, {memory / 1e9:.1f} GB/s "
        f"| {parts['product'] * 1e3:.0f} + {parts['memory'] * 1e3:.0f} = {predicted * 1e3:.0f} ms "
        f"| {step * 1e3:.0f} ms | {step / predicted:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="steps of each shape, a multiple of 4")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    sys.stdout.write(
        "| d_in, d_sae, batch | speeds of the machine | predicted: products + memory | measured | measured / predicted |\n"
        "|---|---|---|---|---|\n"
    )
    for shape in SHAPES:
        sys.stdout.write(line(*shape, repeats) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
