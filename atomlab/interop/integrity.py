"""Checksums beside the files of an SAE, and what takes the place of one that is damaged."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from atomlab.files import atomic_write, regular, sha256
from atomlab.interop.checkpoint import find_checkpoint

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
_LONGEST = 1 << 16  # bytes


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Writes `SHA256SUMS`, which `sha256sum -c` reads too. SAELens ignores it.

    Args:
        folder: of the SAE.
        names: of its files, which are complete.

    Raises:
        OSError: the folder cannot be written.
    """
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    with atomic_write(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def check_checksum(folder: Path, name: str) -> bool:
    """Compares a file with its line in `SHA256SUMS`.

    Args:
        folder: of the SAE.
        name: of the file in it.

    Returns:
        Whether there is a `SHA256SUMS`, so that the file is known to be as it was written. Folders of others have none.

    Raises:
        ValueError: the file differs from its line, or the list is damaged or lacks it.

    Cost: one read of the file.
    """
    listed = folder / CHECKSUMS
    if not listed.exists():
        return False
    if regular(listed).stat().st_size > _LONGEST:
        raise ValueError(
            f"{listed} has more than {_LONGEST:,} bytes: expected a line of checksum and name for each file."
        )
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    stated = {found[2]: found[1] for line in lines if (found := _LINE.fullmatch(line))}
    if stated.get(name) != sha256(folder / name):
        raise ValueError(
            f"{folder / name} is damaged or was changed since it was saved: its SHA-256 is not the one in {CHECKSUMS}. Copy "
            f"the folder again, or, if it was changed on purpose, remove {CHECKSUMS}."
        )
    return True


def sound(sae: Path, run: Path, names: Iterable[str]) -> Path:
    """Returns the SAE of a run, or, if it is damaged, the newest checkpoint of the run that can be read.

    Args:
        sae: folder of the SAE.
        run: folder of the run. Only `run/sae` has checkpoints beside it that can take its place.
        names: of the files of the SAE.

    Returns:
        `sae`, or a checkpoint, of which a line on standard error tells.

    Raises:
        ValueError: the SAE is damaged, and so is every checkpoint.
    """
    if sae != run / "sae" or not any((run / "checkpoints").glob("[!.]*.ckpt")):
        return sae
    try:
        for name in names:
            check_checksum(sae, name)
    except (OSError, ValueError) as error:
        checkpoint = find_checkpoint(run)
        sys.stderr.write(f"atomlab: {str(error).rstrip('.')}. The TSAE of {checkpoint} is used in its place.\n")
        return checkpoint
    return sae
