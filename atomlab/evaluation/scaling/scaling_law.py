"""A scaling law of the held-out loss over the number of atoms, of training vectors and of atoms in a code (L0)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from atomlab.evaluation.scaling.interval import Estimate, NotEnoughCells, estimate, spread

_VARIES = 1.25  # least ratio of the largest and the smallest value of a factor that a law has an exponent for
_OWN = 0.05  # least share of the variance of a factor's logarithm that the factors before it do not explain
_EXPONENTS = (-3.0, 5.0)
_LARGEST_FLOOR = 0.999  # of the smallest loss


class Cell(NamedTuple):
    """A measured cell: the means over its seeds.

    Attributes:
        atoms: number of atoms.
        vectors: number of training vectors.
        l0: mean number of atoms of a held-out code.
        loss: 1 − R² in the S-norm on held-out vectors, above 0.
    """

    atoms: float
    vectors: float
    l0: float
    loss: float


FACTORS = ("atoms", "vectors", "l0")


@final
@dataclass(frozen=True)
class ScalingLaw:
    """The law loss = floor + coefficient · ∏ (factor / middle)^−exponent, over the factors that vary in the cells.

    Attributes:
        floor: the loss that no factor removes, in [0, smallest measured loss).
        coefficient: the loss above the floor in the middle of the cells.
        exponents: of each factor; positive where more of it lowers the loss.
        middle: geometric mean of each factor over the cells.
        cells: number of cells that were fitted.
        residual: root mean square of log(measured / fitted), over the degrees of freedom.
    """

    floor: Estimate
    coefficient: Estimate
    exponents: Mapping[str, Estimate]
    middle: Mapping[str, float]
    cells: int
    residual: float

    def loss(self, cell: Cell) -> float:
        """Returns the loss that the law gives for the factors of a cell, whatever its measured loss."""
        powers = (
            -exponent.value * math.log(getattr(cell, factor) / self.middle[factor])
            for factor, exponent in self.exponents.items()
        )
        return self.floor.value + self.coefficient.value * math.exp(sum(powers))


class Prediction(NamedTuple):
    """What a law says of a cell that it was not fitted to.

    Attributes:
        cell: with its measured loss.
        loss: the predicted loss, and the 95% interval in which a new measurement is expected.
        law: the law, fitted to all other cells.
    """

    cell: Cell
    loss: Estimate
    law: ScalingLaw

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.loss.low <= self.cell.loss <= self.loss.high


def scaling_law(cells: Sequence[Cell], *, draws: int = 300, seed: int = 0) -> ScalingLaw | NotEnoughCells:
    """Fits the scaling law by least squares on log(loss).

    A factor gets an exponent if it varies by a quarter or more, and if the factors before it (atoms, vectors, L0) leave at
    least 5% of its variance unexplained: two factors that go up together cannot be told apart. The intervals are those of a
    bootstrap of the residuals. They hold if the law holds, and say nothing of another form.

    Args:
        cells: with losses above 0.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The law, or why there is none: one cell more is needed than there are numbers to fit.

    Cost: `draws` + 2 fits of at most five numbers.
    """
    found = _fitted(cells, None, draws, seed)
    return found if isinstance(found, NotEnoughCells) else found[0]


def held_back(cells: Sequence[Cell], *, draws: int = 300, seed: int = 0) -> Prediction | NotEnoughCells:
    """Predicts the cell with the most atoms, of these the most vectors and the largest L0, from all other cells.

    Args:
        cells: with losses above 0.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The prediction, whose interval has the uncertainty of the law and the residual of a cell; or why there is none.

    Cost: that of `scaling_law`.
    """
    if not cells:
        return NotEnoughCells("not enough cells: there are 0")
    last = max(cells, key=lambda cell: (cell.atoms, cell.vectors, cell.l0))
    found = _fitted([cell for cell in cells if cell is not last], last, draws, seed)
    if isinstance(found, NotEnoughCells):
        return NotEnoughCells(f"{found.sentence}, beside the one that is held back")
    law, predicted = found
    return Prediction(last, predicted, law)


def _fitted(
    cells: Sequence[Cell], new: Cell | None, draws: int, seed: int
) -> tuple[ScalingLaw, Estimate] | NotEnoughCells:
    """The law of some cells, and its prediction of a new cell (of the first one where there is none)."""
    factors = _factors(cells)
    fitted, freedom = 2 + len(factors), len(cells) - 2 - len(factors)
    if not factors or freedom < 1:
        varies = ", ".join(factors) or "nothing"
        return NotEnoughCells(
            f"not enough cells: there are {len(cells)} in which {varies} varies, and {max(fitted, 3) + 1} are needed"
        )
    middle = {factor: float(np.exp(np.mean([math.log(getattr(cell, factor)) for cell in cells]))) for factor in factors}
    logs, losses = _logs(cells, middle), np.array([cell.loss for cell in cells])
    best = min((_fit(logs, losses, start) for start in (0.3, 0.9)), key=lambda one: one.cost)
    curve = _law(best.x, logs, losses.min())
    residuals = np.log(losses / curve)
    scaled = spread(residuals, freedom)
    generator = np.random.default_rng(seed)
    at = _logs([cells[0] if new is None else new], middle)
    drawn = []
    for _ in range(draws):
        again = curve * np.exp(generator.choice(scaled, len(cells)))
        numbers = _fit(logs, again, best.x[1], best.x).x
        floor, predicted = numbers[1] * again.min(), _law(numbers, at, again.min())[0]
        drawn.append([floor, math.exp(numbers[0]), *numbers[2:], predicted * math.exp(generator.choice(scaled))])
    values = [best.x[1] * losses.min(), math.exp(best.x[0]), *best.x[2:], _law(best.x, at, losses.min())[0]]
    floor, coefficient, *exponents, predicted = (
        estimate(float(value), column, freedom) for value, column in zip(values, np.array(drawn).T, strict=True)
    )
    residual = math.sqrt(float(residuals @ residuals) / freedom)
    law = ScalingLaw(floor, coefficient, dict(zip(factors, exponents, strict=True)), middle, len(cells), residual)
    return law, predicted


def _factors(cells: Sequence[Cell]) -> list[str]:
    """The factors whose exponents the cells can tell."""
    chosen: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for factor in FACTORS:
        values = np.array([getattr(cell, factor) for cell in cells])
        if len(values) == 0 or values.min() <= 0 or values.max() < _VARIES * values.min():
            continue
        column = np.log(values) - np.log(values).mean()
        rest = column
        if columns:
            before = np.stack(columns, 1)
            rest = column - before @ np.linalg.lstsq(before, column, rcond=None)[0]
        if rest @ rest >= _OWN * (column @ column):
            chosen.append(factor)
            columns.append(column)
    return chosen


def _logs(cells: Sequence[Cell], middle: Mapping[str, float]) -> NDArray[np.float64]:
    """Logarithms of the factors over their middle, `(cells, factors)`."""
    return np.array([[math.log(getattr(cell, name) / value) for name, value in middle.items()] for cell in cells])


def _law(numbers: NDArray[np.float64], logs: NDArray[np.float64], smallest: float) -> NDArray[np.float64]:
    """The loss, from log(coefficient), the floor as a share of the smallest loss, and the exponents."""
    return numbers[1] * smallest + np.exp(numbers[0] - logs @ numbers[2:])


def _fit(
    logs: NDArray[np.float64], losses: NDArray[np.float64], floor: float, start: NDArray[np.float64] | None = None
) -> OptimizeResult:
    """Least squares on log(loss); starts from a floor, or from numbers that fitted other losses."""
    smallest, count = losses.min(), logs.shape[1]
    lowest, highest = [-np.inf, 0.0, *[_EXPONENTS[0]] * count], [np.inf, _LARGEST_FLOOR, *[_EXPONENTS[1]] * count]
    if start is None:
        start = np.array([math.log(np.exp(np.log(losses).mean()) * (1 - 0.9 * floor)), floor, *[0.2] * count])
    inside = np.clip(start, np.array(lowest) + 1e-6, np.array(highest) - 1e-6)
    return least_squares(
        lambda numbers: np.log(_law(numbers, logs, smallest) / losses), inside, bounds=(lowest, highest), x_scale=1.0
    )
