"""Finds and reads the SAE that a user's path means, and refuses one that was trained at another site."""

import logging
import re
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.activations.model.sites import HookPoint
from atomlab.identity import MAY_DIFFER, Identity, check_same
from atomlab.interop.checkpoint import load_checkpoint
from atomlab.interop.load import find_sae, identity_in, place_of
from atomlab.interop.sae_from_tensors import threshold_sae
from atomlab.interop.site_names import SHORT_NAMES, hook_point_of
from atomlab.sae import SAE, BaselineSAE, TopK, fold
from atomlab.theory import AtomicInnerProduct

_log = logging.getLogger(__name__)


def locate(path: str | Path, data: ActivationDataModule) -> Path:
    """Finds the SAE that a path means, and checks that it was trained where it is to be measured.

    An SAE that does not say where it was trained is accepted. No weights and no activations are read; a checkpoint is read
    as a whole.

    Args:
        path: whatever `atomlab.interop.load` takes: a run's folder or checkpoint, an SAE of any known format, or its name on
            the hub.
        data: gives the model, layer and site that are measured.

    Returns:
        The folder or file that `path` means, as `place_of` finds it.

    Raises:
        FileNotFoundError: no SAE of a known kind is there.
        ValueError: the SAE was trained on another model, layer or site than that of `data`, cannot be held, or what it says
            of its training is damaged.
    """
    found = place_of(path)
    _check_site(found, data)
    return found


def load_at_site(path: str | Path, data: ActivationDataModule, metric: AtomicInnerProduct) -> SAE:
    """Reads the SAE that a path means, as an SAE of raw activations whose latents all have atoms.

    A latent whose decoder row is exactly zero has no atom and adds nothing to a reconstruction. Such latents are left
    out, and a warning says how many they are.

    Args:
        path: a path as `locate` takes it.
        data: gives the site that is measured; it must have been set up, so that its width d_in is known.
        metric: the inner product S. The SAE of a checkpoint is folded into raw coordinates and its atoms are scaled
            to unit S-norm, as a run does before it saves its SAE. Other SAEs are returned as they were saved.

    Returns:
        The SAE, in float32 on the CPU.

    Raises:
        FileNotFoundError: no SAE is there.
        ValueError: the SAE is of another site, width or kind, a file is damaged, or it has fewer than 2 atoms that are not
            zero.
    """
    found = locate(path, data)
    checkpoint = load_checkpoint(found) if found.suffix == ".ckpt" else None
    sae = find_sae(found).read() if checkpoint is None else checkpoint[0]
    if sae.d_in != data.d_in:
        raise ValueError(
            f"The SAE in {path} has d_in={sae.d_in} and this site {data.d_in}: choose the model, site and layer that the "
            "SAE was trained on."
        )
    if checkpoint is None:
        return with_atoms(sae, path)
    return fold(*checkpoint).with_unit_norm_decoder(metric.matrix.to(sae.W_dec))


def with_atoms(sae: SAE, source: str | Path) -> SAE:
    """Leaves out the latents whose decoder row is exactly zero, and logs a warning that counts them.

    Args:
        sae: the SAE; it stays as it is.
        source: where it comes from. Messages name it.

    Returns:
        The same SAE if all latents have atoms, or one with fewer latents and the same reconstructions.

    Raises:
        ValueError: fewer than 2 atoms are not zero, or atoms of a TopK SAE are zero: without them it would keep others.
    """
    kept = sae.W_dec.detach().any(dim=1)
    zero = int((~kept).sum())
    if len(kept) - zero < 2:
        raise ValueError(
            f"{source} has {len(kept) - zero} decoder rows that are not zero: at least 2 atoms are needed."
        )
    if not zero:
        return sae
    if isinstance(sae, BaselineSAE) and isinstance(sae.activation, TopK):
        raise ValueError(
            f"{source} has {zero} decoder rows that are zero and a TopK, which would keep other latents without them: "
            "measure an SAE whose latents all have atoms."
        )
    _log.warning("%s: %d of %d latents have a zero decoder row and are left out.", source, zero, len(kept))
    return _with_latents(sae, kept)


@torch.no_grad()
def _with_latents(sae: SAE, kept: Bool[Tensor, " d_sae"]) -> SAE:
    """Returns the SAE of the latents that are marked, in their order."""
    weights = {name: getattr(sae, name).detach()[kept] for name in ("W_dec", "b_enc")}
    weights |= {"W_enc": sae.W_enc.detach()[:, kept], "b_dec": sae.b_dec.detach()}
    centred = sae.apply_b_dec_to_input
    same = sae.one_step() if isinstance(sae, BaselineSAE) else sae
    weights |= {"W_enc": same.W_enc.detach()[:, kept], "b_enc": same.b_enc.detach()[kept]}
    weights["threshold"] = same.threshold.detach()[kept]
    return threshold_sae(weights, sae.origin, apply_b_dec_to_input=centred)


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
    named = find_sae(found).origin.site if identity is None else str(identity.get("hook_point"))
    if named is not None and not _agrees(named, data):
        raise ValueError(
            f"The SAE in {found} was trained at {named} and {data.point} is measured: choose the site and layer that it "
            "was trained on, or an SAE of this one."
        )
    if identity is not None:
        remedy = "measure it on the model that it was trained on"
        check_same(data.identity, identity, what=f"The SAE in {found}", remedy=remedy, only=("model",))


def _agrees(named: str, data: ActivationDataModule) -> bool:
    """Returns whether a site's name can mean the site of `data`.

    Names of TransformerLens, of this package and of modules are compared exactly, with or without the side, from the whole
    model or its base model. Of a name in another notation only the number of the layer is compared, if it has one.
    """
    if str(data.point).endswith(f".{named}"):  # which no quantised model could tell
        return True
    try:
        if named in SHORT_NAMES:  # without its layer
            point = data.model.hook_point(SHORT_NAMES[named], data.hook_points.layer)
        else:
            point = hook_point_of(named, data.model)
    except ValueError:
        layer, here = re.search(r"(?:\.|layer_)(\d+)(?:\.|_|$)", named), data.point.num_layers
        known = named.endswith((".input", ".output"))  # a module, which this model lacks
        return not known and (layer is None or here is None or int(layer[1]) == here - 1)
    return _residual(point) == _residual(data.point)


def _residual(point: HookPoint) -> HookPoint:
    """Renames the input of block l to the output of block l − 1, which is the same tensor; others stay as they are."""
    block = re.fullmatch(r"(\D*\.)(\d+)", point.module)
    if point.side == "input" and block and int(block[2]) > 0:
        return HookPoint(f"{block[1]}{int(block[2]) - 1}", "output")
    return point
