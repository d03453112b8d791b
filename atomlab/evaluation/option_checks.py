"""Checks of options that several studies have."""

from collections.abc import Collection, Sequence


def check_names(option: str, names: Sequence[str], known: Collection[str]) -> None:
    """Checks an option that lists names.

    Args:
        option: name of the option of a study.
        names: its value.
        known: the names that there are.

    Raises:
        ValueError: the value is one word and no list, or holds an unknown name.
    """
    if isinstance(names, str):
        raise ValueError(f"study.{option}={names} is one word: expected a list, study.{option}=[{names}].")
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"study.{option} names {', '.join(unknown)}: choose from {', '.join(known)}.")
