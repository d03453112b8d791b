"""python -m benchmarks.scaling [--small] [--json FILE]: time and memory as functions of the sizes, against docstrings.

Each function runs at 2,048 samples, d_in 512, d_sae 8,192 (or half of the two) and codes of 16 atoms, then with one
size doubled. Time: of the processor, on one thread, so that other work beside it does not matter; by how much it grows,
beside the growth of the operations that the docstring counts. Memory: the peak of the process above what it held before
the call, results included, beside the docstring's numbers. A line is `ok` if no growth is more than a third above the
claim, and no peak more than a third and 64 MB (tiles, the libraries' own buffers). Linux only.
"""

import argparse
import ctypes
import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from atomlab.theory import (
    angle_distribution,
    coherence_statistics,
    dual_certificates,
    empirical_isometry,
    exact_recovery_coefficients,
    isometry_ratios,
    match_atoms,
    orthogonal_matching_pursuit,
    random_dictionary,
    refit_codes,
    restricted_isometry_bounds,
    shared_thresholds,
    support_recovery,
    support_sizes,
    variance_sums,
)

K, PURSUED = 16, 4
SLACK, SLACK_MB = 4 / 3, 64


class Sizes(NamedTuple):
    samples: int = 2048
    d_in: int = 512
    d_sae: int = 8192


class Inputs(NamedTuple):
    x: Tensor
    dictionary: Tensor
    codes: Tensor  # CSR
    whitening: Tensor


class Claim(NamedTuple):
    """Of a docstring: operations, and numbers held at a time in MB."""

    work: Callable[[Inputs], object]
    operations: Callable[[int, int, int], float]
    megabytes: Callable[[int, int, int], float]


def mb(numbers: float, width: int = 4) -> float:
    return numbers * width / 2**20


CLAIMS = {
    "coherence_statistics(k=64)": Claim(
        lambda i: coherence_statistics(i.dictionary),
        lambda s, d, n: d * n * n + 100 * n * n,
        lambda s, d, n: mb(n * d + 3 * n * 64 + 5 * 2048 * 2048) + mb(2 * 4096 * d, 8),
    ),
    "restricted_isometry_bounds(K=16)": Claim(
        lambda i: restricted_isometry_bounds(i.dictionary, K),
        lambda s, d, n: d * n * n + 100 * n * n + 2 * 2 * 32 * K * d * n,
        lambda s, d, n: mb(2 * n * d + 2 * 32 * n + 5 * 2048 * 2048 + 512 * K * d, 8),
    ),
    "exact_recovery_coefficients": Claim(
        lambda i: exact_recovery_coefficients(i.codes, i.dictionary),
        lambda s, d, n: 2 * d * n * min(s * K, n) + 2 * s * K * (K + 8) * n,
        lambda s, d, n: mb(n * d + n * 1024 + n * d + 3 * s * 1024) + mb(2 * n * d + 4 * s * K * K, 8),
    ),
    "dual_certificates": Claim(
        lambda i: dual_certificates(i.codes, i.dictionary),
        lambda s, d, n: 2 * s * d * n,
        lambda s, d, n: mb(n * d + 3 * s * 1024 + s * d) + mb(2 * n * d + 4 * s * K * K + s * d, 8),
    ),
    "isometry_ratios": Claim(
        lambda i: isometry_ratios(i.codes, i.dictionary, norms=i.dictionary[:, 0]),
        lambda s, d, n: 2 * s * K * d,
        lambda s, d, n: mb(s * d),
    ),
    "empirical_isometry": Claim(
        lambda i: empirical_isometry(i.codes, i.dictionary),
        lambda s, d, n: s * K * K * (K + d) + 8 * d * n,
        lambda s, d, n: mb(3 * n * d + 3 * s * K * K + s * d, 8),
    ),
    "refit_codes": Claim(
        lambda i: refit_codes(i.x, i.codes, i.dictionary),
        lambda s, d, n: s * K * K * (K + d) + 8 * d * n,
        lambda s, d, n: mb(3 * n * d + 3 * s * K * K + s * d, 8),
    ),
    "support_recovery": Claim(
        lambda i: support_recovery(i.x, i.codes, i.dictionary, i.dictionary[:, 0]),
        lambda s, d, n: 2 * s * d * n,
        lambda s, d, n: mb(n * d + 6 * s * 256) + mb(2 * n * d + s * d, 8),
    ),
    "shared_thresholds": Claim(
        lambda i: shared_thresholds(i.x, i.codes, i.dictionary),
        lambda s, d, n: 2 * s * d * n + 1000 * s * n,
        lambda s, d, n: mb(n * d) + mb(2 * n * d + s * d + 12 * max(2**18, 16 * s), 8),
    ),
    "orthogonal_matching_pursuit(K=4)": Claim(
        lambda i: orthogonal_matching_pursuit(i.x, i.dictionary, PURSUED),
        lambda s, d, n: 2 * s * PURSUED * d * n,
        lambda s, d, n: mb(s * n + 3 * min(s, 2048) * n + n * d + s * PURSUED * d),
    ),
    "variance_sums": Claim(
        lambda i: variance_sums(i.x, i.x.flip(0)), lambda s, d, n: s * d, lambda s, d, n: mb(s * d) + mb(2 * s * d, 8)
    ),
    "variance_sums(S-norm)": Claim(
        lambda i: variance_sums(i.x, i.x.flip(0), i.whitening),
        lambda s, d, n: 4 * s * d * d,
        lambda s, d, n: mb(s * d) + mb(4 * s * d, 8),
    ),
    "angle_distribution": Claim(
        lambda i: angle_distribution(i.x),
        lambda s, d, n: s * s * (d + 500),
        lambda s, d, n: mb(3 * s * d + 4 * 1024 * s, 8),
    ),
    "match_atoms(d_sae/8)": Claim(
        lambda i: match_atoms(i.dictionary[: len(i.dictionary) // 8], i.dictionary.flip(0)[: len(i.dictionary) // 8]),
        lambda s, d, n: (n / 8) ** 3 + 2 * d * (n / 8) ** 2,
        lambda s, d, n: mb(n * d) + mb(4 * (n / 8) ** 2, 8),
    ),
    "support_sizes(dense)": Claim(
        lambda i: support_sizes(i.codes.to_dense()), lambda s, d, n: s * n, lambda s, d, n: mb(2 * s * n)
    ),
}


def inputs(sizes: Sizes) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    samples, d_in, d_sae = sizes
    columns = torch.rand(samples, d_sae, generator=generator).topk(K, dim=1).indices.sort(dim=1).values
    values = torch.rand(samples * K, generator=generator) + 0.1
    codes = torch.sparse_csr_tensor(torch.arange(samples + 1) * K, columns.flatten(), values, (samples, d_sae))
    x = torch.randn(samples, d_in, generator=generator)
    return Inputs(x, random_dictionary(d_sae, d_in, generator), codes, torch.eye(d_in, dtype=torch.float64))


def status(field: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(work: Callable[[Inputs], object], given: Inputs) -> tuple[float, float]:
    """Seconds, the better of two, and the peak in MB above what was held before."""
    best, peak = float("inf"), 0.0
    for _ in range(2):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
        start = time.process_time()
        work(given)
        best = min(best, time.process_time() - start)
        peak = max(peak, status("VmHWM") - before)
    return best, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="half of d_in and d_sae")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = Sizes(d_in=256, d_sae=4096) if given.small else Sizes()
    grown = {"base": base} | {name: base._replace(**{name: 2 * getattr(base, name)}) for name in base._fields}
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in CLAIMS}
    for size, sizes in grown.items():
        made = inputs(sizes)
        for name, claim in CLAIMS.items():
            found[name][size] = measure(claim.work, made)
    lines = [line(name, found[name], grown) for name in CLAIMS]
    sys.stdout.write("\n".join([HEAD, *lines]) + "\n")
    if given.json:
        machine = f"1 thread, {platform.machine()}, torch {torch.__version__}"
        given.json.write_text(
            json.dumps({"machine": machine, "sizes": base._asdict(), "found": found}, indent=1) + "\n"
        )


HEAD = (
    "| function | seconds | time x2 samples | x2 d_in | x2 d_sae | peak MB (claim) | x2 samples | x2 d_in | x2 d_sae | |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(name: str, found: dict[str, tuple[float, float]], grown: dict[str, Sizes]) -> str:
    """A row of the table: growth of the time (claimed), and peaks (claimed)."""
    claim, (seconds, _) = CLAIMS[name], found["base"]
    operations = {size: claim.operations(*sizes) for size, sizes in grown.items()}
    growths = {s: (found[s][0] / seconds, operations[s] / operations["base"]) for s in grown if s != "base"}
    peaks = {s: (found[s][1], claim.megabytes(*sizes)) for s, sizes in grown.items()}
    fine = all(measured <= SLACK * claimed for measured, claimed in growths.values()) and all(
        measured <= SLACK * claimed + SLACK_MB for measured, claimed in peaks.values()
    )
    cells = [f"{measured:.1f} ({claimed:.1f})" for measured, claimed in growths.values()]
    cells += [f"{measured:.0f} ({claimed:.0f})" for measured, claimed in peaks.values()]
    return f"| `{name}` | {seconds:.3f} | {' | '.join(cells)} | {'ok' if fine else '**no**'} |"


if __name__ == "__main__":
    main()
