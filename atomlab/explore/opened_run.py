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
from atomlab.identity import comparable_identity
from atomlab.interop.formats.saelens import CONFIG, load_config
from atomlab.interop.load import find_sae
from atomlab.interop.locate import with_atoms
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
        run: the folder of a run of train.py, or one with an SAE in any format that atomlab reads. An opened run is
            returned as it is.
        model: the language model. None: the one that the run's folder or its SAE names.
        point: the hook point, such as "model.layers.5.output". None: the one that the SAE names.

    Returns:
        The opened run. The weights of the language model are loaded when they are first used.

    Raises:
        FileNotFoundError: there is no SAE.
        ValueError: the SAE cannot be read, does not say where it belongs, or belongs to another model.
    """
    if isinstance(run, OpenedRun):
        return run
    given = Path(run).expanduser()
    folder = given / "sae" if (given / "sae").is_dir() else given
    sae = with_atoms(find_sae(folder).read(), folder).requires_grad_(False)
    metadata = (load_config(folder).get("metadata") or {}) if (folder / CONFIG).exists() else {}
    record = metadata.get("atomlab_identity")
    identity = None if record is None else comparable_identity(record, str(folder / CONFIG))
    named = point or (identity or {}).get("hook_point") or metadata.get("hf_hook_name") or metadata.get("hook_name")
    if named is None:
        raise ValueError(f'{folder} does not say where its SAE belongs: give point="model.layers.5.output", say.')
    if model is None:
        model = model_of_run(folder.parent if folder.name == "sae" else folder, identity)
    else:
        check_model(model, identity, folder)
    rules = (identity or {}).get("activations", {}).get("tokens", {})
    return OpenedRun(
        sae,
        model,
        HookPoint.parse(str(named)),
        drop_first=bool(rules.get("drop_first", True)),
        drop_special=bool(rules.get("drop_special", True)),
    )
