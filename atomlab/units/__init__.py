"""What is compared: atoms, neurons, features, controls; each gives a dictionary and codes."""

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
