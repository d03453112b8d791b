"""The check that the options of every stage share."""


def check_sizes(part: str, **sizes: float | None) -> None:
    """Checks that options leave something to work on.

    Args:
        part: the part of conf/activations that they belong to, such as `tokens`.
        sizes: options by name; None sets no limit.

    Raises:
        ValueError: one of them is below 1, or no number at all.
    """
    for name, value in sizes.items():
        if value is not None and not value >= 1:
            raise ValueError(f"activations.{part}.{name}={value} leaves nothing: use 1 or more.")
