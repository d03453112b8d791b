"""What a study compares: named dictionaries, each with a way to code an activation on it.

- `unit`: the type `Unit`, and the two that need no data: `atoms` of a TSAE and `neurons` of a site.
- `dictionaries`: the dictionaries of controls: random atoms, training vectors and k-means centroids.
- `coded`: one dictionary with any of the coders, at a wanted L0.

To add a dictionary, write a function here; a control is also listed in
`atomlab.evaluation.controls`.
"""

from atomlab.units.coded import CODERS, coded
from atomlab.units.dictionaries import data_dictionary, data_nearest, k_means, random_atoms
from atomlab.units.unit import Unit, atoms, neurons, source_of

__all__ = [
    "CODERS",
    "Unit",
    "atoms",
    "coded",
    "data_dictionary",
    "data_nearest",
    "k_means",
    "neurons",
    "random_atoms",
    "source_of",
]
