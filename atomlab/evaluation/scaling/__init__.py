"""Laws that are fitted to measured cells, as pure functions: how many atoms a number of vectors needs, and what a loss follows.

- `interval.py`: a number with its interval, and the answer of a fit that has too few cells.
- `critical_size.py`: the number of atoms at which R² reaches a target, and its power law over the number of vectors.
- `scaling_law.py`: loss = floor + coefficient · atoms^−a · vectors^−b · L0^−c, and what it
  predicts of a cell that it has not seen.
"""
