"""Reads thousands of damaged and hostile checkpoints and SAE files, and counts what happened: `python -m benchmarks.fuzz_files`.

A case is at fault if
- code of the file runs, a process starts, or anything is opened for writing while the file is read;
- memory grows by more than 1 GB, or reading takes more than 20 seconds;
- an error is none of the two that are promised (ValueError, FileNotFoundError), has several lines, or does not name the file;
- a file that has a checksum is read with other weights than were written.

Other weights from a file without a checksum, or whose checksum the attacker made, are counted as `other weights`.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atomlab import ThresholdSAE, load_sae, save_sae
from atomlab.interop import load
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.interop.checkpoint_file import write_checkpoint_file
from atomlab.sae import SAE
from benchmarks.fuzz_changes import KINDS
from benchmarks.fuzz_sharded import reseal, write_sharded

LIMIT = 1 << 30  # bytes that memory may grow by
SECONDS = 20
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess", "socket.", "shutil.", "pickle.find_class"),
    *("os.remove", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "ctypes.dlopen"),
)
READERS: dict[str, Callable[[Path], SAE]] = {
    "checkpoint": lambda folder: load_checkpoint(folder / "last.ckpt")[0],
    "sharded": lambda folder: load_checkpoint(folder / "last.ckpt")[0],
    "sae": load_sae,
    "foreign sae": load_sae,
    "npz": load,
}


def originals(folder: Path) -> dict[str, Path]:
    """Writes one whole file of each format, and returns their folders."""
    torch.manual_seed(0)
    sae, eye = ThresholdSAE(6, 10), torch.eye(6)
    with torch.no_grad():
        sae.threshold.uniform_(0.1, 1)
        sae.b_enc.normal_()
    weights = {f"sae.{name}": value.detach() for name, value in sae.state_dict().items()}
    state = weights | {"transform.mean": torch.zeros(6), "transform.matrix": eye, "transform.inverse": eye}
    moments = {number: {"exp_avg": torch.randn(10, 6), "step": torch.tensor(3.0)} for number in range(2)}
    optimizer = [{"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}]}]
    checkpoint = {"state_dict": state, "optimizer_states": optimizer, "loops": {"fit": {}}, "global_step": 3}
    places = {kind: folder / kind for kind in READERS}
    for place in places.values():
        place.mkdir()
    write_checkpoint_file(checkpoint, places["checkpoint"] / "last.ckpt")
    write_sharded(checkpoint, places["sharded"])
    save_sae(sae, places["sae"], {"hook_name": "model.layers.1.output"})
    save_sae(sae, places["foreign sae"], {"hook_name": "model.layers.1.output"})
    (places["foreign sae"] / "SHA256SUMS").unlink()
    config = json.loads((places["foreign sae"] / "cfg.json").read_text())
    del config["metadata"]["weights_sha256"]
    (places["foreign sae"] / "cfg.json").write_text(json.dumps(config))
    arrays = {name: value.detach().numpy() for name, value in sae.state_dict().items()}
    np.savez(places["npz"] / "params.npz", **arrays)
    return places


class Watch:
    """Notes what a file must not cause, by Python's audit events."""

    def __init__(self) -> None:
        self.active, self.seen = False, []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            path, mode, flags = arguments
            wanted = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            if (isinstance(flags, int) and flags & wanted) or (isinstance(mode, str) and set(mode) & set("wax+")):
                self.seen.append(f"opened {path} for writing")
        elif event.startswith(FORBIDDEN):
            self.seen.append(event)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.active, self.seen = True, []
        signal.alarm(SECONDS)
        try:
            yield
        finally:
            signal.alarm(0)
            self.active = False


def _too_slow(number: int, frame: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


def outcome(read: Callable[[Path], SAE], folder: Path, before: dict[str, Tensor], watch: Watch) -> str:
    """What happened: `refused`, `the same weights`, `other weights`, or what is at fault."""
    try:
        with watch.reading():
            found = read(folder).state_dict()
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        if (
            "\n" in said
            or len(said) > 1000
            or str(folder) not in said
            or type(error) not in (ValueError, FileNotFoundError)
        ):
            return f"FAULT: the error is no clear sentence ({type(error).__name__}: {said[:300]!r})"
        result = "refused"
    except BaseException as error:
        return f"FAULT: {type(error).__name__}: {str(error)[:300]}"
    else:
        same = found.keys() == before.keys() and all(torch.equal(found[name], before[name]) for name in before)
        result = "the same weights" if same else "other weights"
        if not all(value.isfinite().all() for value in found.values()):
            result = "FAULT: weights that are not finite"
    return f"FAULT: {'; '.join(watch.seen)}" if watch.seen else result


def main(cases: int, seed: int, root: Path) -> dict[str, Counter[str]]:
    """Runs the cases and returns the outcomes of each kind of change."""
    signal.signal(signal.SIGALRM, _too_slow)
    places = originals(root)
    before = {name: read(places[name]).state_dict() for name, read in READERS.items()}  # imports what it needs, too
    rng, watch, counts = random.Random(seed), Watch(), {}
    outside = {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in range(cases):
        kind = KINDS[number % len(KINDS)]
        source = rng.choice([name for name in READERS if name in kind.formats])
        case = root / "case"
        shutil.copytree(places[source], case)
        kind.change(case, rng, root / "marker")
        if source == "sharded" and not kind.accidental and kind.name != "wrong pointer":
            reseal(case)
        found = outcome(READERS[source], case, before[source], watch)
        if found == "other weights" and kind.accidental and source != "foreign sae":
            found = "FAULT: other weights although there is a checksum"
        if (root / "marker").exists():
            found = "FAULT: code of the file ran"
        counts.setdefault(f"{kind.name}, {source}", Counter())[found] += 1
        shutil.rmtree(case)
    now = {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
    written = [f"FAULT: {path} was written or removed" for path in now.keys() ^ outside.keys()]
    counts["all together"] = Counter([*written, f"memory grew by {grown / 1e6:.0f} MB"])
    if grown > LIMIT:
        counts["all together"]["FAULT: memory"] += 1
    return counts


def report(counts: dict[str, Counter[str]]) -> str:
    """One line for each kind of change, and the sum."""
    total: Counter[str] = Counter()
    lines = []
    for kind, outcomes in sorted(counts.items()):
        lines.append(f"{kind:45} {', '.join(f'{count:,} {what}' for what, count in sorted(outcomes.items()))}")
        for what, count in outcomes.items():
            total["FAULTS" if what.startswith("FAULT") else what] += count
    return "\n".join([*lines, f"{'sum':45} {dict(total)}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counted = main(options.cases, options.seed, Path(folder))
    sys.stdout.write(f"{report(counted)}\n")
    sys.exit(any(what.startswith("FAULT") for outcomes in counted.values() for what in outcomes))
