"""Progress bars: one at a time, and none where nobody looks at a terminal."""

import os
import sys

from tqdm.auto import tqdm

WHEN = "ATOMLAB_PROGRESS"  # environment variable: always, never, or auto


def shows_progress() -> bool:
    """Returns whether progress bars are drawn.

    They are drawn on a terminal and in a notebook, so that the log file of a job has no hundreds of lines of them. The
    environment variable ATOMLAB_PROGRESS=always draws them everywhere, and ATOMLAB_PROGRESS=never nowhere.
    """
    chosen = os.environ.get(WHEN, "auto")
    if chosen in ("always", "never"):
        return chosen == "always"
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def token_bar(total: int, description: str, *, of_first_process: bool = True) -> tqdm:
    """Makes a bar that counts tokens.

    Args:
        total: tokens in all.
        description: stands before the bar.
        of_first_process: whether this is the first process of its run; others draw none.

    Returns:
        The bar, which is silent where `shows_progress` is false.
    """
    silent = not (of_first_process and shows_progress())
    return tqdm(total=total, unit=" tokens", unit_scale=True, desc=description, disable=silent)
