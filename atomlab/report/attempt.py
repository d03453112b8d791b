"""Parts of a report that may be missing, so that one of them never costs the others."""

import sys
from collections.abc import Callable
from typing import TypeVar

from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue] # it is made in C++

T = TypeVar("T")


def attempt(what: str, make: Callable[[], T], missing: list[str]) -> T | None:
    """What `make` returns; or None where it cannot be computed from these numbers, and one sentence in `missing` and on
    standard error.

    Args:
        what: begins the sentence.
        make: raises ValueError, or LinAlgError, with the reason; every other error is a bug and is raised.
        missing: of the report.
    """
    try:
        return make()
    except (ValueError, LinAlgError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        missing.append(f"{what} is left out: {reason}")
        sys.stderr.write(f"atomlab: {missing[-1]}\n")
        return None
