"""python -m benchmarks.coders [--json FILE]: the time of each coder, in products of the samples with the dictionary.

Vectors are sums of random unit atoms plus noise, of unequal numbers of atoms. The dictionary has its one-step code from
`threshold_coder`, and the pursuit is calibrated on other vectors. All that a coder needs but once for any number of
vectors is in its time too. `product` is x·Wᵀ, whole and in float32; times are medians of rounds in turn, so that a
change of the speed of the machine meets all alike, and each is divided by that of the product in its own round. `fvu`
is the share of variance that the codes leave.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from atomlab.coders import calibrate_threshold_pursuit, encode, threshold_coder
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import decode_csr
from atomlab.theory import AtomicInnerProduct, random_dictionary


def planted(dictionary: Tensor, samples: int, l0: int, seed: int) -> Tensor:
    """Sums of l0/2 to 3·l0/2 atoms with weights of 0.5 to 1.5, plus noise of a tenth of their size."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(dictionary), (samples, l0 + l0 // 2), generator=generator)
    sizes = torch.randint(l0 // 2, l0 + l0 // 2 + 1, (samples, 1), generator=generator)
    weights = 0.5 + torch.rand(chosen.shape, generator=generator)
    weights *= torch.arange(chosen.shape[1]) < sizes
    sums = torch.stack([w @ dictionary[c] for c, w in zip(chosen, weights, strict=True)])
    noise = torch.randn(sums.shape, generator=generator)
    return sums + 0.1 * noise * sums.norm() / noise.norm()


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def case(
    d_in: int, d_sae: int, l0: int, samples: int, rounds: int, stages: list[int], in_metric: bool
) -> dict[str, dict[str, float]]:
    dictionary = random_dictionary(d_sae, d_in, torch.Generator().manual_seed(0)).float()
    x, other = planted(dictionary, samples, l0, 1), planted(dictionary, samples, l0, 2)
    moment = (x.T @ x).double() / samples
    metric = AtomicInnerProduct.from_second_moment(moment, shrinkage=0.1) if in_metric else None
    sae = threshold_coder(dictionary, torch.zeros(d_in), other, float(l0), metric)
    coders: dict[str, Callable[[], Tensor]] = {
        "threshold": partial(encode, sae, x),
        "refit": partial(encode, sae, x, "refit", metric=metric),
    }
    for count in stages:
        pursuit = calibrate_threshold_pursuit(sae, other, float(l0), count, metric)
        coders[f"threshold_pursuit, {count} stages"] = partial(
            encode, sae, x, "threshold_pursuit", pursuit=pursuit, metric=metric
        )
    for name in ("omp", "nonnegative_omp"):
        coders[name] = partial(encode, sae, x, name, k=l0, metric=metric)
    ratios: dict[str, list[float]] = {name: [] for name in coders}
    for turn in range(rounds + 1):
        for name, coder in coders.items():
            product = min(seconds(lambda: x @ dictionary.T) for _ in range(2))
            taken = seconds(coder)
            if turn or rounds == 0:  # the first round warms up
                ratios[name].append(taken / product)
    return {name: {"products": statistics.median(ratios[name])} | quality(sae, x, coders[name]()) for name in coders}


def quality(sae: ThresholdSAE, x: Tensor, codes: Tensor) -> dict[str, float]:
    rest = x - decode_csr(codes, sae.W_dec.detach(), sae.b_dec.detach())
    variance = (x - x.mean(0)).square().sum()
    return {"l0": len(codes.values()) / len(x), "fvu": float(rest.square().sum() / variance)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--d-in", type=int, default=768)
    parser.add_argument("--d-sae", type=int, default=12_288)
    parser.add_argument("--l0", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--metric", action="store_true", help="code in the S-norm of the vectors' second moment")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sizes = {"d_in": given.d_in, "d_sae": given.d_sae, "l0": given.l0, "samples": given.samples, "rounds": given.rounds}
    rows = case(**sizes, stages=given.stages, in_metric=given.metric)
    print(f"{sizes}, metric: {given.metric}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, float32")
    print(f"{'coder':<30}{'products':>10}{'L0':>8}{'FVU':>8}")
    for name, row in rows.items():
        print(f"{name:<30}{row['products']:>10.2f}{row['l0']:>8.2f}{row['fvu']:>8.3f}")
    if given.json:
        text = json.dumps({**sizes, "metric": given.metric, "coders": rows}, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
