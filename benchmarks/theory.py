"""python -m benchmarks.theory coherence|certificates [--full] [--json FILE]: costs as ratios to matrix products.

Every time is the best of the repetitions stated; the products are timed beside the functions, in the same process.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from atomlab.theory import (
    coherence_statistics,
    dual_certificates,
    exact_recovery_coefficients,
    random_codes,
    random_dictionary,
)


def seconds(work: Callable[[], object], repetitions: int = 1) -> float:
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def gemm_rate(d: int, side: int = 2048) -> float:
    """float32 FLOPs a second of (side, d) with (d, side)."""
    a, b = torch.randn(side, d), torch.randn(d, side)
    out = torch.empty(side, side)
    return 2 * side * side * d / seconds(lambda: torch.mm(a, b, out=out), 8)


def coherence(n: int, d: int) -> dict[str, float]:
    """One streaming pass against the same number of FLOPs, half of the symmetric square, at the GEMM's rate."""
    dictionary = random_dictionary(n, d, torch.Generator().manual_seed(0))
    before = gemm_rate(d)
    taken = seconds(lambda: coherence_statistics(dictionary, k=64))
    rate = (before + gemm_rate(d)) / 2
    return {
        "d_sae": n,
        "d_in": d,
        "seconds": taken,
        "gemm_gflops": rate / 1e9,
        "share_of_gemm_rate": d * n * n / rate / taken,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def certificates(samples: int, n: int, d: int, k: int) -> dict[str, float]:
    """Levels 4 and 3. Level 4 against (samples, d) x (d, n); level 3 against the products it needs on its own way (the
    Gram tiles of the atoms in use, and K x K times K x n a sample) and against those of the direct way, from the rate.
    """
    generator = torch.Generator().manual_seed(0)
    dictionary = random_dictionary(n, d, generator)
    flat = torch.zeros(samples, n)
    flat[:, :k] = torch.rand(samples, k, generator=generator) + 0.1
    codes = random_codes(flat, generator)
    x, columns = torch.randn(samples, d), dictionary.T.contiguous()
    product = seconds(lambda: [part @ columns for part in x.split(1024)], 3)
    level4 = seconds(lambda: dual_certificates(codes, dictionary), 2)
    inverse, gram = torch.randn(64, k, k), torch.randn(64, k, 1024)
    own = product * n / samples + seconds(lambda: torch.bmm(inverse, gram), 5) * samples * n / (64 * 1024)
    level3 = seconds(lambda: exact_recovery_coefficients(codes, dictionary))
    return {
        "samples": samples,
        "d_sae": n,
        "d_in": d,
        "l0": k,
        "product_seconds": product,
        "level_4_seconds": level4,
        "level_4_over_product": level4 / product,
        "level_3_seconds": level3,
        "level_3_products_seconds": own,
        "level_3_over_products": level3 / own,
        "level_3_direct_products_seconds": product * k,
        "level_3_over_direct_products": level3 / (product * k),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["coherence", "certificates"])
    parser.add_argument("--full", action="store_true", help="the sizes of docs/theory.md; minutes")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.what == "coherence":
        found = coherence(65_536 if given.full else 8192, 2304)
    else:
        found = certificates(10_000 if given.full else 500, 16_384, 768, 32)
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, float32, torch {torch.__version__}"
    text = json.dumps({"benchmark": given.what, "machine": machine} | found, indent=1)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
