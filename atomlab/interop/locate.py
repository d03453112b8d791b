"""The SAEs that a study measures, from wherever they lie, at the site that they were trained on."""

import re
from pathlib import Path

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.sites import HookPoint
from atomlab.identity import MAY_DIFFER, Identity, check_same, checked
from atomlab.interop.checkpoint import load_checkpoint, read_checkpoint
from atomlab.interop.released import load_released
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
}  # not hook_mlp_in: that lies before the norm, mlp_in after it


def locate(path: str | Path, data: ActivationDataModule) -> Path:
    """Where the SAE that `path` means lies, an SAE folder, an .npz or a .ckpt: of a run's folder `sae/`, or of a run that
    was stopped `checkpoints/last.ckpt`. Reads no weights and no activations.

    Raises:
        FileNotFoundError: nothing of that kind is there.
        ValueError: it was trained on another model, layer or site than that of `data`.
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
        found = places[0]
    _check_site(found, data)
    return found


def load_at_site(path: str | Path, data: ActivationDataModule, metric: AtomicInnerProduct) -> ThresholdSAE:
    """The TSAE of raw activations that `path` means (see `locate`).

    Args:
        path: a run folder, an SAE folder, Gemma Scope's params.npz, or a checkpoint of train.py.
        data: set up; its site and width must be the SAE's.
        metric: S; atoms of a checkpoint get unit S-norm, as those that a run saves.

    Raises:
        FileNotFoundError: nothing to read there.
        ValueError: an SAE of another site, width or kind, or a damaged file.
    """
    found = locate(path, data)
    sae, transform = load_checkpoint(found) if found.suffix == ".ckpt" else (load_released(found), None)
    if sae.d_in != data.d_in:
        raise ValueError(
            f"The SAE in {path} has d_in={sae.d_in} and this site {data.d_in}: choose the model, site and layer that it "
            "was trained on."
        )
    if transform is None:
        return sae
    return fold(sae, transform).with_unit_norm_decoder(metric.matrix.to(sae.W_dec))


def identity_in(found: Path) -> Identity | None:
    """The record of the run that a located SAE comes from; None where it says nothing of that kind, as foreign ones.

    Raises:
        ValueError: a record of another format, or a damaged checkpoint.
    """
    if found.suffix == ".ckpt":
        return checked(read_checkpoint(found).get("identity"), str(found))
    if not (found / "cfg.json").exists():
        return None
    record = (load_config(found).get("metadata") or {}).get("atomlab_identity")
    return None if record is None else checked(record, str(found / "cfg.json"))


def check_seed(found: Path, ours: Identity | None) -> None:
    """Refuses a located SAE that differs from ours in more than its seed; what says nothing of its run passes.

    Raises:
        ValueError: names what differs, with both values.
    """
    theirs = identity_in(found)
    if ours is not None and theirs is not None:
        check_same(
            ours,
            theirs,
            what=f"The SAE in {found}, named in study.seeds,",
            remedy="name runs that differ in their seed only",
            may_differ=("seed", "activations.batches.seed", *MAY_DIFFER),
        )


def _check_site(found: Path, data: ActivationDataModule) -> None:
    """Raises ValueError if what lies there says that it was trained elsewhere; what says nothing of it passes."""
    identity = identity_in(found)
    named = _site_of_sae(found) if identity is None else str(identity.get("hook_point"))
    if named is not None and not _agrees(named, data):
        raise ValueError(
            f"The SAE in {found} was trained at {named} and {data.point} is measured: choose its site and layer, or an "
            "SAE of this one."
        )
    if identity is not None:
        remedy = "measure it on the model that it was trained on"
        check_same(data.identity, identity, what=f"The SAE in {found}", remedy=remedy, only=("model",))


def _site_of_sae(found: Path) -> str | None:
    if not (found / "cfg.json").exists():
        return None
    config = load_config(found)
    places = (config.get("metadata") or {}, config)  # at top level before SAELens 6
    named = [place[key] for place in places for key in ("hook_name", "hook_point") if place.get(key)]
    reads_heads = config.get("reshape_activations") == "hook_z"
    return str(named[0]) if named else "attn.hook_z" if reads_heads else None


def _agrees(named: str, data: ActivationDataModule) -> bool:
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
    """What a block reads is what the one before it gave: one name for both."""
    block = re.fullmatch(r"(\D*\.)(\d+)", point.module)
    if point.side == "input" and block and int(block[2]) > 0:
        return HookPoint(f"{block[1]}{int(block[2]) - 1}", "output")
    return point
