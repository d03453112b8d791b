"""Where a file has each parameter of an SAE, and whether its header has all of them, in shapes that belong together."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

from atomlab.interop.tensor_file import TensorFile

_SHOWN = 8  # keys of a file that an error message names


@final
@dataclass(frozen=True)
class Stored:
    """How a file stores a parameter.

    Attributes:
        key: of the tensor in the file.
        transposed: whether the file has the transpose of what this package has.
    """

    key: str
    transposed: bool = False


def plainly(*names: str) -> dict[str, Stored]:
    """Makes the layout of a file that has these parameters by their own names and in their own orientation."""
    return {name: Stored(name) for name in names}


def shapes_of(d_in: int, d_sae: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter that an SAE of some kind has, by its name in this package."""
    latents = ("b_enc", "threshold", "r_mag", "b_gate", "b_mag")
    return {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)} | dict.fromkeys(latents, (d_sae,))


def is_of_layout(file: TensorFile, layout: Mapping[str, Stored], format: str) -> bool:
    """Says whether a file whose format its keys alone tell has all keys of a layout.

    Args:
        file: the file.
        layout: of the format.
        format: its name, for the error message.

    Raises:
        ValueError: it has all but one.
    """
    keys = {stored.key: None for stored in layout.values()}
    missing = keys.keys() - file.shapes.keys()
    if len(missing) == 1:
        raise ValueError(
            f"{file.path} has no {missing.pop()}: expected {', '.join(keys)} in a file of {format}, {found_in(file)}."
        )
    return not missing


def found_in(file: TensorFile) -> str:
    """Names the keys and shapes that a file has, for the end of an error message."""
    named = [f"{key} {shape}" for key, shape in list(file.shapes.items())[:_SHOWN]]
    return f"found {', '.join(named) or 'no tensors'}{' and more' if len(file.shapes) > _SHOWN else ''}"


def check_header(
    file: TensorFile, layout: Mapping[str, Stored], kind: str, ignored: Collection[str]
) -> tuple[int, int]:
    """Checks that a header has all parameters, no others, and in shapes that belong together.

    Args:
        file: the file.
        layout: where it has each parameter; W_dec is among them.
        kind: names what only has these parameters, for error messages.
        ignored: further keys that it may have.

    Returns:
        (d_sae, d_in).

    Raises:
        ValueError: a parameter is missing, unknown, empty or of another shape than the others say, or its sides are swapped.
    """
    keys = [stored.key for stored in layout.values()]
    decoder = layout["W_dec"]
    if len(file.shapes.get(decoder.key, ())) != 2:
        sides = "(d_in, d_sae)" if decoder.transposed else "(d_sae, d_in)"
        raise ValueError(
            f"{file.path} has no {decoder.key} of shape {sides}: expected the weights of an SAE, {found_in(file)}."
        )
    if missing := sorted(set(keys) - set(file.shapes)):
        raise ValueError(f"{file.path} has no {', '.join(missing)}: expected {', '.join(keys)}, {found_in(file)}.")
    if unknown := sorted(set(file.shapes) - set(keys) - set(ignored)):
        raise ValueError(
            f"{file.path} has {', '.join(unknown)}, which {kind} does not have, so it computes another function: "
            f"only {', '.join(keys)} can be read."
        )
    if 0 in file.shapes[decoder.key]:
        raise ValueError(
            f"{file.path}: {decoder.key} is of shape {file.shapes[decoder.key]} and holds nothing: download or save it again."
        )
    d_sae, d_in = _sizes({name: _here(file, stored) for name, stored in layout.items()})
    for name, shape in shapes_of(d_in, d_sae).items():
        if name in layout and _here(file, layout[name]) != shape:
            raise _of_another_shape(file, layout[name], shape)
    return d_sae, d_in


def _here(file: TensorFile, stored: Stored) -> tuple[int, ...]:
    """The shape that a tensor has in this package's orientation."""
    return file.shapes[stored.key][:: -1 if stored.transposed else 1]


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Returns (d_sae, d_in) as most parameters have them, so that the one that differs is the one that is blamed.

    Vectors have no sides: where every matrix is of their sizes or of these swapped, theirs count.
    """
    matrices = [shapes[name][::step] for name, step in (("W_dec", 1), ("W_enc", -1)) if len(shapes.get(name, ())) == 2]
    inputs = [shape[0] for name, shape in shapes.items() if name == "b_dec" and len(shape) == 1]
    latents = [shape[0] for name, shape in shapes.items() if name != "b_dec" and len(shape) == 1]
    if len(set(inputs)) == len(set(latents)) == 1:
        sizes = latents[0], inputs[0]
        if all(matrix in (sizes, sizes[::-1]) for matrix in matrices):
            return sizes
    said = ([matrix[0] for matrix in matrices] + latents, [matrix[1] for matrix in matrices] + inputs)
    d_sae, d_in = (Counter(values).most_common(1)[0][0] for values in said)  # of equally many the first, W_dec's
    return d_sae, d_in


def _of_another_shape(file: TensorFile, stored: Stored, shape: tuple[int, ...]) -> ValueError:
    """Makes the error for a tensor that is not of the shape that it has in this package."""
    expected, found = shape[:: -1 if stored.transposed else 1], file.shapes[stored.key]
    dtype = file.read(stored.key).dtype if math.prod(found) <= 1 << 20 else "a tensor"
    swapped = len(found) == 2 and found == expected[::-1]
    remedy = ": its sides are swapped, so save its transpose" if swapped else ""
    return ValueError(
        f"{file.path}: {stored.key} should be floating numbers of shape {expected}, found {dtype} of shape {found}{remedy}."
    )
