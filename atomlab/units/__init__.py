"""What a study compares: named dictionaries, each with a way to code an activation on it.

- `unit`: the type `Unit`, and the two that need no data: `atoms` of a TSAE and `neurons` of a site.
- `dictionaries`: the controls, which are units from random atoms, from training vectors and from k-means centroids.

To add a kind of unit, write a function here that returns a `Unit`; a control is also listed in
`atomlab.evaluation.controls`.
"""

from atomlab.units.dictionaries import data_dictionary, data_nearest, k_means, random_atoms, with_pursuit
from atomlab.units.unit import Unit, atoms, neurons

__all__ = [
    "Unit",
    "atoms",
    "data_dictionary",
    "data_nearest",
    "k_means",
    "neurons",
    "random_atoms",
    "with_pursuit",
]
