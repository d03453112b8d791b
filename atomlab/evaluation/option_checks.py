"""Checks of options that list names."""

from collections.abc import Collection, Sequence


def check_list(option: str, values: Sequence[str]) -> None:
    """Checks that the value of an option is a list and no word.

    Raises:
        ValueError: it is one word.
    """
    if isinstance(values, str):
        raise ValueError(f"{option}={values} is one word: expected a list, {option}=[{values}].")


def check_names(option: str, names: Sequence[str], known: Collection[str]) -> None:
    """Checks an option that lists names.

    Args:
        option: name of the option, such as study.controls.
        names: its value.
        known: the names that there are.

    Raises:
        ValueError: the value is one word and no list, or holds an unknown name.
    """
    check_list(option, names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{option} names {', '.join(unknown)}: choose from {', '.join(known)}.")
