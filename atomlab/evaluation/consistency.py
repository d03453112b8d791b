"""Which atoms do several SAEs have in common? `python -m atomlab.evaluation.consistency a/ b/ c/` writes the answer as JSON.

Atoms of each two SAEs are matched one to one (Hungarian matching of cosines), in the Euclidean metric and, where it is known, in
the metric S: that of `--moments`, or of the first path that is a run's folder whose coordinates were made with S.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atomlab.evaluation.provenance import commit
from atomlab.files import atomic_write, regular, sha256
from atomlab.identity import FILE, read_identity
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.interop.load import load, place_of
from atomlab.sae import SAE
from atomlab.theory import CAME_BACK, AtomicInnerProduct, matched_cosines, random_dictionary

_BINS = 40  # of the histogram of cosines, from −1 to 1
_LAST = Path("checkpoints", "last.ckpt")


def compare(dictionaries: Mapping[str, Tensor], metrics: Mapping[str, AtomicInnerProduct | None]) -> dict[str, Any]:
    """Matches the atoms of each two dictionaries, in each metric.

    Args:
        dictionaries: two or more, by name, atoms as rows, all of one width.
        metrics: by name; None means Euclidean.

    Returns:
        `pairs`, for each two dictionaries and metric: the names, `mean` of the matched cosines over the atoms of the smaller
        dictionary, `share`, those above .7, and `histogram`, how many lie in each of 40 equal bins from −1 to 1. `pw_mcc`, the
        mean of `mean` over the pairs by metric (PW-MCC, Song et al. 2025, arXiv:2505.20254, here of signed cosines, since an
        atom is not its negative). `pw_mcc_random`, the mean for two random dictionaries of the first pair's sizes.

    Raises:
        ValueError: fewer than two dictionaries, different widths, or more atoms than can be matched.

    Cost: a matching for each two dictionaries and metric, O(d_sae³).
    """
    if len(dictionaries) < 2:
        raise ValueError(f"A comparison needs two SAEs or more, got {len(dictionaries)}: name another one.")
    widths = {name: rows.shape[1] for name, rows in dictionaries.items()}
    if len(set(widths.values())) > 1:
        named = ", ".join(f"{name} has d_in={width}" for name, width in widths.items())
        raise ValueError(f"{named}: compare SAEs of one model and site.")
    pairs = []
    for (a, first), (b, second) in itertools.combinations(dictionaries.items(), 2):
        smaller, larger = sorted((first, second), key=len)
        for name, metric in metrics.items():
            cosines = matched_cosines(smaller, larger, metric)
            pairs.append({"a": a, "b": b, "metric": name} | _numbers(cosines))
    sizes = [len(rows) for rows in list(dictionaries.values())[:2]]
    width, generator = next(iter(widths.values())), torch.Generator().manual_seed(0)
    drawn = [random_dictionary(size, width, generator) for size in sorted(sizes)]
    return {
        "pairs": pairs,
        "pw_mcc": {
            name: sum(each) / len(each)
            for name in metrics
            for each in [[pair["mean"] for pair in pairs if pair["metric"] == name]]
        },
        "pw_mcc_random": float(matched_cosines(drawn[0], drawn[1], None).mean()),
    }


def _numbers(cosines: Tensor) -> dict[str, Any]:
    return {
        "atoms": len(cosines),
        "mean": float(cosines.mean()),
        "share": float((cosines > CAME_BACK).double().mean()),
        "histogram": torch.histc(cosines.clamp(-1, 1), bins=_BINS, min=-1, max=1).long().tolist(),
    }


def read(path: str | Path) -> tuple[SAE, Path]:
    """Reads the SAE that a path means, and returns it with the file or folder that it was read from.

    Args:
        path: a run's folder, or an SAE in any format that `atomlab.interop.load` reads, or its name on the hub.

    Raises:
        FileNotFoundError: no SAE is there.
        ValueError: the SAE cannot be read.
    """
    found = place_of(path)
    return load(found), found


def metric_of_run(folder: Path) -> AtomicInnerProduct | None:
    """Takes the metric S out of a run's folder, up to a factor, which changes no cosine.

    Inputs of a training with `sae.inputs=scaled` are (x − mean) c·S^(α/2), and the checkpoint has this matrix, so S is its square
    to the power 1/α.

    Args:
        folder: of the run.

    Returns:
        S; None for a folder that is no run's, has no checkpoint, or was trained with raw inputs or α = 0.
    """
    if not (folder / FILE).is_file() or not (folder / _LAST).is_file():
        return None
    sae = read_identity(folder)["sae"]
    if sae["inputs"] != "scaled" or not sae["alpha"]:
        return None
    matrix = load_checkpoint(folder / _LAST)[1].matrix.double()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    power = (vectors * values ** (2 / sae["alpha"])) @ vectors.T
    return AtomicInnerProduct(power / power.trace() * len(power))


def metric_of_moments(file: Path) -> AtomicInnerProduct:
    """Reads the metric S of a file of moments, such as the activation cache has: `second_moment`, and `count` if it is there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, has no second moment, or this has no inverse.
    """
    try:
        tensors = load_file(regular(file))
    except SafetensorError as error:
        raise ValueError(f"{file} is no readable safetensors file ({error}): give a file of moments.") from error
    if "second_moment" not in tensors:
        raise ValueError(f"{file} has {', '.join(tensors)}: expected second_moment, of shape (d_in, d_in).")
    count = int(tensors["count"]) if "count" in tensors else None
    return AtomicInnerProduct.from_second_moment(tensors["second_moment"], count=count)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 0 or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m atomlab.evaluation.consistency", description=__doc__)
    parser.add_argument("saes", nargs="+", help="runs' folders, or SAEs in any format, here or on the hub")
    parser.add_argument("--moments", type=Path, help="a safetensors file with second_moment, which gives S")
    parser.add_argument("--output", type=Path, help="where the JSON goes; by default to standard output")
    given = parser.parse_args(words)
    try:
        text = json.dumps(_answer(given.saes, given.moments), indent=1) + "\n"
        if given.output is None:
            sys.stdout.write(text)
        else:
            with atomic_write(given.output) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"atomlab: {error}\n")
        return 1
    return 0


def _answer(paths: Sequence[str], moments: Path | None) -> dict[str, Any]:
    found = {path: read(path) for path in paths}
    if moments is not None:
        metric = metric_of_moments(moments)
    else:
        metric = next((one for one in map(metric_of_run, map(Path, paths)) if one is not None), None)
    width = next(iter(found.values()))[0].d_in
    if metric is not None and len(metric.matrix) != width:
        raise ValueError(
            f"The metric S is of width {len(metric.matrix)} and the SAEs of {width}: give moments of their site."
        )
    metrics: dict[str, AtomicInnerProduct | None] = {"euclidean": None} | ({} if metric is None else {"s": metric})
    dictionaries = {name: sae.W_dec.detach() for name, (sae, _) in found.items()}
    files = {name: sorted(file for file in _files(place)) for name, (_, place) in found.items()}
    provenance = {
        "commit": commit(),
        "sha256": {name: {file.name: sha256(file) for file in each} for name, each in files.items()},
        "metric_s": "not known"
        if metric is None
        else "of --moments"
        if moments is not None
        else "of a run's checkpoint",
        "atoms": {name: len(rows) for name, rows in dictionaries.items()},
    }
    return compare(dictionaries, metrics) | {"provenance": provenance}


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]


if __name__ == "__main__":
    sys.exit(main())
