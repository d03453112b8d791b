"""Ranges of options, as annotations of the signatures that they go to: one place for the command line and for notebooks.

A field `steps: Count` says that a whole number of 1 or more is expected. The command line holds every value of conf/ against
these annotations before anything is built (`atomlab.launch.options`), and the types themselves call `check_ranges`. The
annotations are those of annotated-types, and pydantic compares.
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict, TypeAdapter, ValidationError

Count = Annotated[int, Ge(1)]
Index = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Ratio = Annotated[float, Ge(1)]
Share = Annotated[float, Interval(ge=0, le=1)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]  # what the generators of NumPy take

_EXACT = ConfigDict(strict=True, allow_inf_nan=False)  # "3" and true are no numbers


def has_range(hint: Any) -> bool:
    """Returns whether an annotation, or a member of it, has a range."""
    return get_origin(hint) is Annotated or any(map(has_range, get_args(hint)))


def fits(value: Any, hint: Any) -> bool:
    """Compares a value with an annotation that has a range.

    Args:
        value: of plain types: numbers, text, None, lists.
        hint: such as `Count`, or `Positive | None`.

    Returns:
        Whether the value has the type and lies in the range. Infinity and NaN lie in none.

    >>> [fits(value, Count) for value in (1, 0, 2.5, True, "3")]
    [True, False, False, False, False]
    """
    try:
        TypeAdapter(hint, config=_EXACT).validate_python(value)
    except ValidationError:
        return False
    return True


def in_words(hint: Any) -> str:
    """Says what an annotation expects.

    >>> in_words(Count | None)
    'a whole number of 1 or more or null'
    >>> in_words(Share)
    'a number from 0 to 1'
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, args))
    if hint is NoneType:
        return "null"
    if origin is not Annotated:
        return getattr(hint, "__name__", str(hint))
    number = "a whole number" if args[0] is int else "a number"
    match args[1]:
        case Interval(ge=low, le=high) if high is not None:
            return f"{number} from {low} to {high}"
        case Gt(gt=low):
            return f"{number} above {low}"
        case rule:
            return f"{number} of {rule.ge} or more"


def check_ranges(part: str, instance: object, keys: Mapping[str, str] | None = None) -> None:
    """Checks all fields of an object whose annotations have a range.

    Args:
        part: where the fields stand in conf/, such as `training.schedule`.
        instance: has the annotated fields.
        keys: the whole key of fields that the user sets by another one, by the name of the field.

    Raises:
        ValueError: a value of the wrong type or outside of its range. The message names its key in conf/.
    """
    for name, hint in get_type_hints(type(instance), include_extras=True).items():
        value = getattr(instance, name)
        if has_range(hint) and not fits(value, hint):
            raise ValueError(f"{(keys or {}).get(name, f'{part}.{name}')}={value} should be {in_words(hint)}.")
