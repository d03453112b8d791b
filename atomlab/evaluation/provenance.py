"""Where the numbers of a report come from: what a reader needs to repeat them, and no path of the machine."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from atomlab.activations.corpora.corpus import Corpus
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.store.row_origins import read_bad_records
from atomlab.identity import Identity
from atomlab.interop.export.metadata import metadata_of_data
from atomlab.metrics.sample_sizes import SampleSizes


def describe(data: ActivationDataModule, sample_sizes: SampleSizes, shrinkage: float, seed: int) -> dict[str, str]:
    """Describes where the numbers of a table come from, as a reader needs it to repeat them.

    Args:
        data: the activations, set up.
        sample_sizes: of the table.
        shrinkage: λ of the metric S.
        seed: seed of the run.

    Returns:
        Text by name: model, site, corpus, records left out, metric S, vectors of each split, vectors measured, seeds of
        the run and of its data, commit, versions, machine. No path of this machine is in it.
    """
    reference = data.reference_moments
    group = data.corpus.group_kind
    train, test = (min(sample_sizes.measured, len(data.rows[split])) for split in ("train", "test"))
    return {
        "model": data.model.title,
        "revision": data.model.revision,
        "site": str(data.point),
        "corpus": f"{type(data.corpus).__name__}, tokens: {data.corpus.position}, held out by {group}",
        "bad records": f"{_left_out(data, data.corpus)}; for S: {_left_out(data, data.reference)}",
        "metric S": f"{type(data.reference).__name__}, {reference.count:,} vectors, shrinkage {shrinkage:g}",
        "vectors": ", ".join(f"{split} {len(rows):,}" for split, rows in data.rows.items()),
        "measured on": f"Measured on {train:,} training and {test:,} held-out vectors; "
        f"held out by {group}: none is in both.",
        "seed": str(seed),
        "data seed": str(data.seed),
        "commit": commit(),
        "versions": ", ".join(
            f"{name} {metadata.version(name)}"
            for name in ("torch", "lightning", "transformers", "torchmetrics", "numpy", "scikit-learn")
        ),
        "machine": f"Python {platform.python_version()}, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}",
    }


def _left_out(data: ActivationDataModule, corpus: Corpus) -> str:
    found = read_bad_records(data.folder(corpus))
    return f"{found.count:,} of {found.read:,} left out (first: {found.first[0]})" if found.count else "none left out"


def metric_of(data: ActivationDataModule, shrinkage: float) -> dict[str, str | int | float]:
    """Describes the metric S for a row of a table.

    Args:
        data: the activations, set up.
        shrinkage: λ of the metric S.

    Returns:
        `s_corpus`, the kind of the reference corpus; `s_vectors`, the number of its vectors that S is from; and
        `shrinkage`.
    """
    return {
        "s_corpus": type(data.reference).__name__,
        "s_vectors": data.reference_moments.count,
        "shrinkage": float(shrinkage),
    }


def origin_of(data: ActivationDataModule, identity: Identity) -> dict[str, Any]:
    """Describes where a saved SAE comes from.

    Args:
        data: the activations that the SAE was trained on.
        identity: the record of its run (`atomlab.identity`).

    Returns:
        What others look up (`metadata_of_data`), and `atomlab_identity`: the record, in which what `data` says of its
        activations takes the place of what `identity` says of them.
    """
    return metadata_of_data(data) | {"atomlab_identity": identity | data.identity}


def trained_on(data: ActivationDataModule) -> int:
    """Returns how many training vectors a run on `data` draws from: those of the cache, or all that it sees online."""
    return len(data.rows["train"]) if data.batches.online is None else data.batches.steps * data.batches.size


def commit() -> str:
    """Returns the commit of the source tree, with `-dirty` if a file was changed; `unknown` outside of a checkout."""
    source = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
