"""What vectors and codes must be to belong to a dictionary."""

from torch import Tensor


def check_vectors(x: Tensor, dictionary: Tensor, codes: Tensor | None = None) -> None:
    """Finite (samples, d_in) vectors, as many as codes.

    Raises:
        ValueError: they are not.
    """
    if x.ndim != 2 or x.shape[1] != dictionary.shape[-1] or not x.isfinite().all():
        raise ValueError(
            f"Expected finite (samples, {dictionary.shape[-1]}) vectors for this dictionary; got shape "
            f"{tuple(x.shape)}, NaN or infinite entries."
        )
    if codes is not None and len(x) != codes.shape[0]:
        raise ValueError(f"{len(x)} vectors do not go with {codes.shape[0]} codes: give each vector its own code.")


def check_codes(codes: Tensor, dictionary: Tensor) -> None:
    """A (samples, d_sae) matrix, one column an atom; values are checked where they are read.

    Raises:
        ValueError: another shape.
    """
    if codes.ndim != 2 or codes.shape[1] != len(dictionary):
        raise ValueError(
            f"Codes should be a (samples, {len(dictionary)}) matrix for this dictionary of {len(dictionary)} atoms, got "
            f"shape {tuple(codes.shape)}."
        )
