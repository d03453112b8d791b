"""Opens a run for a notebook: its SAE, its language model and the place where the two belong together."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from torch import nn

from atomlab.activations.model.language_model import LanguageModel
from atomlab.activations.model.sites import HookPoint
from atomlab.activations.tokens.special_tokens import special_ids
from atomlab.explore.atom_edits import AtomEdit
from atomlab.explore.model_of_run import check_model, model_of_run
from atomlab.explore.splice import splice
from atomlab.interop.load import find_sae, identity_in, place_of
from atomlab.interop.locate import with_atoms
from atomlab.interop.site_names import hook_point_of
from atomlab.sae import SAE


@final
@dataclass(frozen=True)
class OpenedRun:
    """An SAE beside the language model that it was trained on. `open_run` makes one.

    Attributes:
        sae: of raw activations, in float32 on the CPU; its parameters ask for no gradient.
        language_model: whose `tokenizer` and `device` are used; `model` loads it whole, once.
        point: the hook point at which the SAE was trained.
        drop_first: whether the training left out the first position of each text. Then all functions here do.
        drop_special: whether it left out special tokens. Then all functions here do.
    """

    sae: SAE
    language_model: LanguageModel
    point: HookPoint
    drop_first: bool = True
    drop_special: bool = True

    @cached_property
    def model(self) -> nn.Module:
        """The whole model of transformers, in eval mode, with parameters that ask for no gradient; loaded at first use."""
        return self.language_model.load()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the language model."""
        return self.language_model.tokenizer

    @cached_property
    def left_out(self) -> frozenset[int]:
        """Token ids that the training left out: the special tokens, or none."""
        return frozenset(special_ids(self.tokenizer)) if self.drop_special else frozenset()

    def splice(
        self,
        edits: AtomEdit | Sequence[AtomEdit] = (),
        *,
        positions: Collection[int] | None = None,
        keep_error: bool = False,
    ) -> AbstractContextManager[None]:
        """Puts the SAE into `model`, as `atomlab.splice` does, at the tokens that the training knew.

        Args:
            edits: as in `atomlab.splice`.
            positions: as in `atomlab.splice`. None: all, or all but the first with `drop_first`.
            keep_error: as in `atomlab.splice`.

        Returns:
            The context manager.
        """
        if positions is None and not self.drop_first:
            positions = range(2**31)
        return splice(
            self.model, self.sae, self.point, edits, positions=positions, leave=self.left_out, keep_error=keep_error
        )


def open_run(run: str | Path | OpenedRun, *, model: LanguageModel | None = None, point: str | None = None) -> OpenedRun:
    """Opens a run for a notebook: reads its SAE, and finds its language model and hook point.

    Args:
        run: whatever `atomlab.load` takes: the folder of a run of train.py, an SAE in any format that atomlab reads, or its name
            on the hub. An opened run is returned as it is.
        model: the language model. None: the one that the run's folder or its SAE names.
        point: the hook point, such as "model.layers.5.output", or its name in TransformerLens. None: the one that the SAE
            names.

    Returns:
        The opened run. The weights of the language model are loaded when they are first used.

    Raises:
        FileNotFoundError: there is no SAE, or no model of the name that the SAE has.
        ValueError: the SAE cannot be read, does not say where it belongs, or belongs to another model.
    """
    if isinstance(run, OpenedRun):
        return run
    place = place_of(run)
    found, identity = find_sae(place), identity_in(place)
    sae, origin = with_atoms(found.read(), place).requires_grad_(False), found.origin
    named = point or (identity or {}).get("hook_point") or origin.details.get("hf_hook_name") or origin.site
    if named is None:
        raise ValueError(f'{place} does not say where its SAE belongs: give point="model.layers.5.output", say.')
    if model is None:
        model = model_of_run(_run_folder(place), identity, origin.model)
    else:
        check_model(model, identity, place)
    rules = (identity or {}).get("activations", {}).get("tokens", {})
    return OpenedRun(
        sae,
        model,
        hook_point_of(str(named), model),
        drop_first=bool(rules.get("drop_first", True)),
        drop_special=bool(rules.get("drop_special", True)),
    )


def _run_folder(place: Path) -> Path:
    """Returns the folder of the run that an SAE or a checkpoint lies in, or the SAE's own if it is of no run."""
    folder = place if place.is_dir() else place.parent
    return folder.parent if folder.name in ("sae", "checkpoints") else folder
