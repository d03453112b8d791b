"""What is compared: atoms, neurons, controls; each gives a dictionary and codes."""

from atomlab.units.unit import Unit, atoms, neurons, random_atoms

__all__ = ["Unit", "atoms", "neurons", "random_atoms"]
