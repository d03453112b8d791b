"""Leaves out one part of a report that cannot be computed, so that it does not cost the other parts."""

import sys
from collections.abc import Callable
from typing import TypeVar

from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue] # it is made in C++

T = TypeVar("T")


def attempt(what: str, make: Callable[[], T], missing: list[str]) -> T | None:
    """Computes one part of a report, or records in a sentence why it is left out.

    Args:
        what: names the part at the beginning of the sentence, such as "The atom browser".
        make: computes the part. It raises ValueError or LinAlgError where these numbers do not allow it.
        missing: gets the sentence, which is written to standard error too.

    Returns:
        What `make` returns; None if the part is left out.

    Raises:
        Exception: any other error of `make`, which is a fault of the program.
    """
    try:
        return make()
    except (ValueError, LinAlgError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        missing.append(f"{what} is left out: {reason}")
        sys.stderr.write(f"atomlab: {missing[-1]}\n")
        return None
