"""One reader for every SAE: of a run, of a checkpoint, of any known format, on this machine or on the hub."""

from functools import partial
from pathlib import Path

from atomlab.identity import Identity, comparable_identity
from atomlab.interop.checkpoint import find_checkpoint, load_checkpoint, read_checkpoint
from atomlab.interop.config_file import text
from atomlab.interop.formats import saelens
from atomlab.interop.formats.found import Found, folder_of
from atomlab.interop.hub import HubName, download
from atomlab.interop.integrity import sound
from atomlab.interop.recognise import KINDS, recognise
from atomlab.sae import SAE, Origin, fold


def load(path: str | Path, *, revision: str | None = None) -> SAE:
    """Reads an SAE, whichever known format it is in, from this machine or from the hub.

    Args:
        path: a run's folder, a folder or file of any format that docs/interop.md lists, or a name on the hub,
            `<owner>/<name>[@<revision>][/<path>]`. What exists here is never looked for on the hub.
        revision: commit, branch or tag on the hub; None for the main branch.

    Returns:
        The SAE of raw activations, in float32 on the CPU. Its `origin` says which format, architecture, model, site and
        normalisation its files state. It is a `ThresholdSAE` wherever that computes the same function. Its parameters ask
        for no gradient; `requires_grad_()` turns that on. Its atoms have the norms that the file has: those of a run of
        atomlab have unit norm in the metric S of the run.

    Raises:
        FileNotFoundError: nothing of a known format is there; the message says what is.
        ValueError: an SAE is there that cannot be held (a transcoder, an activation of another kind), or its files are
            damaged or do not belong together; the message names file and key, what was found and what was expected.

    Memory: the parameters in float32 and one tensor as it is stored. Shapes are compared before any tensor is read.
    """
    return find_sae(path, revision=revision).read().requires_grad_(False)


def find_sae(path: str | Path, *, revision: str | None = None) -> Found:
    """Finds an SAE like `load`, without reading its weights; a checkpoint of train.py is read as a whole.

    Args:
        path: as in `load`.
        revision: as in `load`.

    Returns:
        What is there: its `origin`, and `read` to read it.

    Raises:
        FileNotFoundError, ValueError: as in `load`, but for what only reading the weights shows.
    """
    place = place_of(path, revision=revision)
    return _of_checkpoint(place) if place.suffix == ".ckpt" else recognise(place)


def place_of(path: str | Path, *, revision: str | None = None) -> Path:
    """Finds the folder or file that a path means, after a download if it is a name on the hub.

    Of a run's folder this is `sae/`, or `checkpoints/last.ckpt` if the run was stopped before it saved its SAE, or the newest
    checkpoint that can be read if that is damaged.

    Args:
        path: as in `load`.
        revision: as in `load`.

    Returns:
        A path that exists. Whether an SAE of a known format is there is for `recognise` to say.

    Raises:
        FileNotFoundError: it is neither here nor on the hub, or the hub could not be reached.
        ValueError: it is a name on the hub that means several SAEs.
    """
    given = Path(path).expanduser()
    if not given.exists():
        name = HubName.parse(path, revision) if isinstance(path, str) else None
        if name is None or given.suffix == ".ckpt":
            raise FileNotFoundError(f"{path} does not exist: expected {KINDS}.")
        return download(name)
    if (given / "sae" / saelens.CONFIG).exists():
        return sound(given / "sae", given, (saelens.CONFIG, saelens.WEIGHTS))
    last = given / "checkpoints" / "last.ckpt"
    return find_checkpoint(last) if last.exists() else given


def identity_in(place: Path) -> Identity | None:
    """Reads the record of the run that an SAE comes from (`atomlab.identity`).

    Args:
        place: as `place_of` returns it; one of the two files of a SAELens folder means the folder.

    Returns:
        The record, or None where there is none, as with the SAEs of others.

    Raises:
        ValueError: the record is of another format, a checkpoint has none, or a file is damaged.
    """
    if place.suffix == ".ckpt":
        return comparable_identity(read_checkpoint(place).get("identity"), str(place))
    place = folder_of(place, saelens.CONFIG, saelens.WEIGHTS)
    config = place / saelens.CONFIG
    if not config.exists() or not (place / saelens.WEIGHTS).exists():
        return None
    record = (saelens.load_config(place).get("metadata") or {}).get("atomlab_identity")
    return None if record is None else comparable_identity(record, str(config))


def _of_checkpoint(file: Path) -> Found:
    identity = read_checkpoint(file).get("identity") or {}
    model = identity.get("model") if isinstance(identity, dict) else None
    built = identity.get("sae") if isinstance(identity, dict) else None
    name = text(model, "hub") if isinstance(model, dict) else None
    site = text(identity, "hook_point") if isinstance(identity, dict) else None
    kind = (text(built, "activation") if isinstance(built, dict) else None) or "threshold"
    origin = Origin("atomlab checkpoint", kind, name, site, "the coordinates of its training, folded into the weights")
    return Found(file, origin, partial(_read_checkpoint, file, origin))


def _read_checkpoint(file: Path, origin: Origin) -> SAE:
    sae = fold(*load_checkpoint(file))
    sae.origin = origin
    return sae
