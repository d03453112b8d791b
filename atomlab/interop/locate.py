"""Finds and reads the SAE that a user's path means, and refuses one that was trained at another site."""

import re
from pathlib import Path

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.sites import HookPoint
from atomlab.identity import MAY_DIFFER, Identity, check_same, comparable_identity
from atomlab.interop.checkpoint import find_checkpoint, load_checkpoint, read_checkpoint
from atomlab.interop.formats import load_released
from atomlab.interop.integrity import sound
from atomlab.interop.saelens import load_config
from atomlab.sae import ThresholdSAE, fold
from atomlab.theory import AtomicInnerProduct

_KINDS = "a run folder, an SAE folder (cfg.json, sae_weights.safetensors), Gemma Scope's params.npz or a run's .ckpt"
_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "attn.hook_z": "attn_z",
    "mlp.hook_post": "mlp_hidden",
}  # without hook_mlp_in, which lies before the norm, where mlp_in lies after it


def locate(path: str | Path, data: ActivationDataModule) -> Path:
    """Finds the SAE that a path means, and checks that it was trained where it is to be measured.

    Of a run's folder this is `sae/`, or `checkpoints/last.ckpt` if the run was stopped before it saved its SAE, or the newest
    checkpoint that can be read if `sae/` is damaged. An SAE that does not say where it was trained is accepted. No
    activations are read; `sae/` of a run's folder and a checkpoint are read as a whole.

    Args:
        path: a run's folder, a SAELens folder, a folder with Gemma Scope's `params.npz`, an `.npz` file, or a `.ckpt`
            file of train.py.
        data: gives the model, layer and site that are measured.

    Returns:
        The SAELens folder, the folder of `params.npz`, the `.npz` file or the `.ckpt` file.

    Raises:
        FileNotFoundError: no SAE of these kinds is there.
        ValueError: the SAE was trained on another model, layer or site than that of `data`, or what it says of its
            training is damaged.
    """
    given = Path(path).expanduser()
    if given.is_file() and given.suffix in (".npz", ".ckpt"):
        found = given
    else:
        own = [given, given / "sae"]
        places = [place for place in own if any((place / name).exists() for name in ("cfg.json", "params.npz"))]
        places += [last for last in (given / "checkpoints" / "last.ckpt",) if last.exists()]
        if not places:
            state = "holds no SAE" if given.exists() else "does not exist"
            raise FileNotFoundError(f"{path} {state}: expected {_KINDS}.")
        found = sound(places[0], given, ("cfg.json", "sae_weights.safetensors"))
        if places[0].suffix == ".ckpt":
            found = find_checkpoint(places[0])
    _check_site(found, data)
    return found


def load_at_site(path: str | Path, data: ActivationDataModule, metric: AtomicInnerProduct) -> ThresholdSAE:
    """Reads the SAE that a path means, as a TSAE of raw activations.

    Args:
        path: a path as `locate` takes it.
        data: gives the site that is measured; it must have been set up, so that its width d_in is known.
        metric: the inner product S. The TSAE of a checkpoint is folded into raw coordinates and its atoms are scaled
            to unit S-norm, as a run does before it saves its SAE. Other SAEs are returned as they were saved.

    Returns:
        The TSAE, in float32 on the CPU.

    Raises:
        FileNotFoundError: no SAE is there.
        ValueError: the SAE is of another site, width or kind, or a file is damaged.
    """
    found = locate(path, data)
    sae, transform = load_checkpoint(found) if found.suffix == ".ckpt" else (load_released(found), None)
    if sae.d_in != data.d_in:
        raise ValueError(
            f"The SAE in {path} has d_in={sae.d_in} and this site {data.d_in}: choose the model, site and layer that the "
            "SAE was trained on."
        )
    if transform is None:
        return sae
    return fold(sae, transform).with_unit_norm_decoder(metric.matrix.to(sae.W_dec))


def identity_in(found: Path) -> Identity | None:
    """Reads the record of the run that an SAE comes from.

    Args:
        found: an SAE as `locate` returns it.

    Returns:
        The record, or None where there is none, as with the SAEs of others.

    Raises:
        ValueError: the record is of another format, a checkpoint has none, or a file is damaged.
    """
    if found.suffix == ".ckpt":
        return comparable_identity(read_checkpoint(found).get("identity"), str(found))
    if not (found / "cfg.json").exists():
        return None
    record = (load_config(found).get("metadata") or {}).get("atomlab_identity")
    return None if record is None else comparable_identity(record, str(found / "cfg.json"))


def check_seed(found: Path, ours: Identity | None) -> None:
    """Checks that an SAE differs from the measured run only in its seed, so that the two can be compared as seeds.

    Two runs that started from the atoms of other runs may have started from those of different ones. The check passes if
    either side has no record of its run.

    Args:
        found: an SAE as `locate` returns it.
        ours: the record of the run that is measured, or None if it has none.

    Raises:
        ValueError: the runs differ in more than their seeds (the message names each difference with both values), or
            the record of the SAE cannot be read.
    """
    theirs = identity_in(found)
    if ours is not None and theirs is not None:
        foreign = all(_trained_start(record) is not None for record in (ours, theirs))
        start = ("training.initial_atoms.source",) if foreign else ()
        check_same(
            ours,
            theirs,
            what=f"The SAE in {found}, named in study.seeds,",
            remedy="name runs that differ in their seed only",
            may_differ=("seed", "activations.batches.seed", *start, *MAY_DIFFER),
        )


def same_start(found: Path, ours: Identity | None) -> bool:
    """Says whether an SAE's training and the measured run started from the atoms of the same other runs.

    Args:
        found: an SAE as `locate` returns it.
        ours: the record of the run that is measured, or None if it has none.

    Returns:
        Whether their records name the same paths; False where one of them names none or there is no record.
    """
    theirs = identity_in(found)
    if ours is None or theirs is None or (start := _trained_start(ours)) is None:
        return False
    return start == _trained_start(theirs)


def _trained_start(record: Identity) -> object:
    """Returns the paths of the runs whose atoms a run started from, as its record has them; None where it had no such start."""
    source = record.get("training", {}).get("initial_atoms", {}).get("source")
    return None if source in ("data", "kmeans", "random") else source


def _check_site(found: Path, data: ActivationDataModule) -> None:
    """Raises ValueError if the SAE says that it was trained on another model or site; one that does not say passes."""
    identity = identity_in(found)
    named = _site_of_sae(found) if identity is None else str(identity.get("hook_point"))
    if named is not None and not _agrees(named, data):
        raise ValueError(
            f"The SAE in {found} was trained at {named} and {data.point} is measured: choose the site and layer that it "
            "was trained on, or an SAE of this one."
        )
    if identity is not None:
        remedy = "measure it on the model that it was trained on"
        check_same(data.identity, identity, what=f"The SAE in {found}", remedy=remedy, only=("model",))


def _site_of_sae(found: Path) -> str | None:
    """Returns the name that a SAELens folder gives to the site of its SAE, in whichever notation; None without one."""
    if not (found / "cfg.json").exists():
        return None
    config = load_config(found)
    places = (config.get("metadata") or {}, config)  # before SAELens 6 the name stood at top level
    named = [place[key] for place in places for key in ("hook_name", "hook_point") if place.get(key)]
    reads_heads = config.get("reshape_activations") == "hook_z"
    return str(named[0]) if named else "attn.hook_z" if reads_heads else None


def _agrees(named: str, data: ActivationDataModule) -> bool:
    """Returns whether a site's name can mean the site of `data`.

    Names of TransformerLens and of this package are compared exactly. Of a name in another notation only the number of
    the layer is compared, if it has one.
    """
    layer = re.search(r"\.(\d+)(?:\.|$)", named)
    here = data.point.num_layers
    lens = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+)", named)
    site = _TRANSFORMER_LENS.get(lens[2]) if lens else None
    try:
        if site is not None:
            point = data.model.hook_point(site, int(layer[1]) if layer else data.hook_points.layer)
        else:
            point = HookPoint.parse(named)
    except ValueError:
        return layer is None or here is None or int(layer[1]) == here - 1
    return _residual(point) == _residual(data.point)


def _residual(point: HookPoint) -> HookPoint:
    """Renames the input of block l to the output of block l − 1, which is the same tensor; others stay as they are."""
    block = re.fullmatch(r"(\D*\.)(\d+)", point.module)
    if point.side == "input" and block and int(block[2]) > 0:
        return HookPoint(f"{block[1]}{int(block[2]) - 1}", "output")
    return point
