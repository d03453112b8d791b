"""atomlab: find the atoms of language models, and prove what you found.

Each name is imported when it is first used, so that `import atomlab` itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomlab.activations.model.language_model import LanguageModel
    from atomlab.coders.encode import encode
    from atomlab.explore.atom_edits import AtomEdit, ablate, add, scale
    from atomlab.explore.atoms_of import Firing, atoms_of
    from atomlab.explore.opened_run import OpenedRun, open_run
    from atomlab.explore.splice import splice
    from atomlab.explore.steer import steer
    from atomlab.interop.export.save import save as save_sae
    from atomlab.interop.load import load
    from atomlab.interop.load import load as load_sae
    from atomlab.sae import BaselineSAE, ThresholdSAE
    from atomlab.training.fit import fit

__all__ = [
    "AtomEdit",
    "BaselineSAE",
    "Firing",
    "LanguageModel",
    "OpenedRun",
    "ThresholdSAE",
    "ablate",
    "add",
    "atoms_of",
    "encode",
    "fit",
    "load",
    "load_sae",
    "open_run",
    "save_sae",
    "scale",
    "splice",
    "steer",
]
_PLACES = {  # where each name is defined, and its name there if that is another
    "AtomEdit": "explore.atom_edits",
    "BaselineSAE": "sae.baselines.baseline_sae",
    "Firing": "explore.atoms_of",
    "LanguageModel": "activations.model.language_model",
    "OpenedRun": "explore.opened_run",
    "ThresholdSAE": "sae.autoencoder",
    "ablate": "explore.atom_edits",
    "add": "explore.atom_edits",
    "atoms_of": "explore.atoms_of",
    "encode": "coders.encode",
    "fit": "training.fit",
    "load": "interop.load",
    "load_sae": "interop.load:load",
    "open_run": "explore.opened_run",
    "save_sae": "interop.export.save:save",
    "scale": "explore.atom_edits",
    "splice": "explore.splice",
    "steer": "explore.steer",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'atomlab' has no attribute {name!r}")
    module, _, original = _PLACES[name].partition(":")
    found = getattr(import_module(f"atomlab.{module}"), original or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
