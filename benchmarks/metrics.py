"""python -m benchmarks.metrics [--json FILE]: what measuring adds to a validation epoch that only reconstructs.

The epoch: batches of Gaussian activations, encoded at the stated L0 and decoded as validation does it, with CSR codes,
float32 on the CPU; and, for comparison, with dense codes (sae.forward). `added`: all that is measured on every vector,
the S-norm R² included, by the Measurement of training itself. Then what an epoch costs once, in seconds and in
vectors that could be reconstructed meanwhile. Times are medians of rounds in turn, so that a change of the speed of the
machine meets all alike.
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

from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import decode_csr, encode_csr
from atomlab.theory import AtomicInnerProduct
from atomlab.training.validation import Measurement


@torch.no_grad()
def untrained(d_in: int, d_sae: int, l0: float, x: Tensor) -> ThresholdSAE:
    sae = ThresholdSAE(d_in, d_sae, bandwidth=0.1, tied=False)
    z = sae.pre_activations(x)
    sae.threshold.fill_(float(z.flatten().kthvalue(int(z.numel() * (1 - l0 / d_sae))).values))
    return sae


@torch.no_grad()
def case(d_in: int, d_sae: int, l0: float, batch: int, batches: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    data = torch.randn(batches, batch, d_in)
    sae = untrained(d_in, d_sae, l0, data[0])
    metric = AtomicInnerProduct(torch.eye(d_in, dtype=torch.float64))
    constructed = seconds(lambda: Measurement(sae, metric))
    every = (rounds + 2) * batches * batch  # more than a validation measures, and than this one sees
    streaming = Measurement(sae, metric, SampleSizes(measured=every, dashboard=1))
    steps = (
        lambda x: decode_csr(encode_csr(sae, x), sae.W_dec, sae.b_dec),
        streaming.update,
        lambda x: sae.decode(sae.encode(x)),
    )
    times = [[epoch(step, data) for step in steps] for _ in range(rounds + 1)][1:]
    plain, full, dense = (statistics.median(column) for column in zip(*times, strict=True))
    once = {
        "coherence": constructed,
        "certificates_of_256": seconds(lambda: certifying(streaming).update(data[0])) - full / batches,
        "restricted_isometry": seconds(streaming.values),
    }
    return {
        "d_in": d_in,
        "d_sae": d_sae,
        "batch": batch,
        "l0": l0,
        "reconstruct_ms": plain / batches * 1e3,
        "reconstruct_dense_ms": dense / batches * 1e3,
        "measured_ms": full / batches * 1e3,
        "added": full / plain - 1,
        "measured_over_dense_reconstruction": full / dense,
        **{f"once_{name}_seconds": value for name, value in once.items()},
        **{f"once_{name}_vectors": round(value / plain * batches * batch) for name, value in once.items()},
    }


def certifying(measurement: Measurement) -> Measurement:
    measurement.certified_left = 256
    return measurement


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def epoch(step: Callable[[Tensor], object], data: Tensor) -> float:
    return seconds(lambda: [step(x) for x in data])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = [case(576, 2304, 40, 512, 8, 15), case(768, 16_384, 32, 512, 4, 9)]
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, float32, torch {torch.__version__}"
    text = json.dumps({"benchmark": "metrics", "machine": machine, "cases": cases}, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
