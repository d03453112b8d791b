"""Records what determines the numbers of a run, and refuses to mix runs whose records differ.

The record is plain JSON. Its keys are those of conf/, so that a difference is named by the option that makes it:

| key | what it says |
|---|---|
| model | digest of the weights' content, or name and commit on the hub; dtype |
| hook_point | module and side |
| corpus, reference | their content, and the rules by which examples are read |
| activations | token rules, split, sample, outliers, order of the batches, precision of the harvest |
| sae | architecture, coordinates of the training |
| training | loss, calibration, schedule, revival, initial atoms, noise, incoherence, implementation |
| shrinkage | of the metric S |
| trainer | precision, accumulation, clipping |
| batch_size, seed, steps | of the run |
| code | version of the package and digest of its source files |

The harvest, every checkpoint, the run folder (`identity.json`), `sae/cfg.json` and `results.json` have it.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from atomlab.files import atomic_write, regular

Identity = dict[str, Any]

FILE = "identity.json"
FORMAT = 2
# Logger, callbacks, devices, paths, and sizes of files and of samples may always change, since they are not recorded. These
# are recorded and may change still: the steps of a resumed run, upwards, and the version of the code, with a notice.
MAY_DIFFER = ("steps", "code")
_OF_TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
_ABSENT = "absent"


def identity_of(configuration: Mapping[str, Any], data: Mapping[str, Any]) -> Identity:
    """Makes the record of a run.

    Args:
        configuration: of train.py, resolved. `sae`, `training`, `shrinkage`, `trainer`, `batch_size`, `seed` and `steps`
            are read.
        data: `ActivationDataModule.identity`: model, hook point, corpora and the rules of the activations.

    Returns:
        The record, as it reads back from JSON.
    """
    own = {key: configuration[key] for key in ("batch_size", "seed", "steps")}
    trainer = {key: configuration["trainer"].get(key) for key in _OF_TRAINER}
    own |= {key: configuration[key] for key in ("sae", "training", "shrinkage")}
    record = {"format": FORMAT, **data, **own, "trainer": trainer, "code": code()}
    return json.loads(json.dumps(record, default=str))


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Finds the values in which two records differ.

    Args:
        here: one record.
        there: the other record.

    Returns:
        (value here, value there) of each difference, by its dotted key; "absent" where a record has no such key.

    >>> differences({"sae": {"tied": True}, "seed": 0}, {"sae": {"tied": False}, "seed": 0})
    {'sae.tied': (True, False)}
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*here, *there]):
        a, b = here.get(key, _ABSENT), there.get(key, _ABSENT)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= {f"{key}.{name}": pair for name, pair in differences(a, b).items()}
        elif a != b:
            found[key] = (a, b)
    return found


def check_same(
    now: Mapping[str, Any],
    then: Mapping[str, Any],
    *,
    what: str,
    remedy: str,
    only: Collection[str] | None = None,
    may_differ: Collection[str] = MAY_DIFFER,
) -> None:
    """Refuses what was made by a run with another record.

    Args:
        now: the record of the run that uses it.
        then: the record of the run that made it.
        what: names what was made, such as `resume=last.ckpt`.
        remedy: says what the user can do, as the end of a sentence.
        only: top-level keys that are compared. None: all.
        may_differ: keys that are not compared, top-level or dotted.

    Raises:
        ValueError: the records differ. The message names the first three differences with both values.
    """
    found = {
        key: pair
        for key, pair in differences(now, then).items()
        if (only is None or key.split(".")[0] in only) and not {key, key.split(".")[0]} & set(may_differ)
    }
    if found:
        said = [f"{key} was {_shown(b)} and is {_shown(a)} now" for key, (a, b) in list(found.items())[:3]]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise ValueError(f"{what} does not belong to this run: {', '.join(said)}{more}; {remedy}.")


def warn_of_other_code(now: Mapping[str, Any], then: Mapping[str, Any], what: str) -> None:
    """Writes one line to standard error if other source files of atomlab made something. That is allowed.

    Args:
        now: the record of the run that uses it.
        then: the record of the run that made it.
        what: names what was made, such as `resume=last.ckpt`.
    """
    if now["code"] != then.get("code"):
        sys.stderr.write(f"atomlab: {what} was made by other source files of atomlab than these; numbers may differ.\n")


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Writes `identity.json`, whole or not at all.

    Args:
        folder: of the run.
        identity: its record.

    Raises:
        OSError: the folder cannot be written.
    """
    with atomic_write(folder / FILE) as temporary:
        temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")


def read_identity(folder: Path) -> Identity:
    """Reads `identity.json` of a run folder.

    Args:
        folder: of the run.

    Returns:
        The record.

    Raises:
        FileNotFoundError: the folder has no such file, since it is no run folder, or one of an earlier version.
        ValueError: the file cannot be read, or is no record of this format.
    """
    file = folder / FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {FILE}, so what was trained there cannot be checked: give the folder of a run of this "
            "version of train.py."
        )
    try:
        found = json.loads(regular(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): train again, or restore it from a copy.") from error
    return comparable_identity(found, str(file))


def comparable_identity(record: Any, source: str) -> Identity:
    """Checks that a record read from elsewhere is in the format that this version compares.

    Args:
        record: what was read where a record is expected.
        source: the file. Error messages name it.

    Returns:
        The same record.

    Raises:
        ValueError: the record is missing, not a record, or of another format.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        stated = record.get("format") if isinstance(record, dict) else None
        raise ValueError(
            f"{source} does not say what was trained in a form that this version reads (format {stated}, expected "
            f"{FORMAT}): use the version of atomlab that wrote it, or train again."
        )
    return record


def code() -> dict[str, str]:
    """Returns the version of the installed package (`version`) and 16 digits of `source_digest` (`source`)."""
    try:
        version = metadata.version("atomlab")
    except metadata.PackageNotFoundError:  # the source tree is not installed
        version = "checkout"
    return {"version": version, "source": source_digest()[:16]}


def source_digest() -> str:
    """Computes the SHA-256 over the source files of the package and their names, 64 hexadecimal digits."""
    source = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*.py")):
        digest.update(f"{file.relative_to(source)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
