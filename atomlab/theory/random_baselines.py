"""Random dictionaries and codes with the sizes of the real ones and no structure: what chance alone gives."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.theory.supports import supports


def random_dictionary(d_sae: int, d_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "d_sae d_in"]:
    """Draws independent atoms uniformly on the Euclidean unit sphere: the baseline of every geometric number.

    Atoms drawn uniformly on the unit sphere of a metric S have the same geometry in S as these have in the Euclidean
    metric. Time and memory: O(d_sae·d_in).

    Args:
        d_sae: number of atoms.
        d_in: width of the atoms.
        generator: source of randomness on the CPU; the global one if None.

    Returns:
        Unit atoms as rows, shape `(d_sae, d_in)`, float32, on the CPU.
    """
    return torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)


def random_codes(
    codes: Tensor, generator: torch.Generator | None = None, share: tuple[int, int] = (0, 1)
) -> Float[Tensor, "samples d_sae"]:
    """Draws codes that keep each sample's K and its values but have supports chosen uniformly at random.

    With `random_dictionary` they are the baseline of every certified rate. Time: samples selections of the k_max
    largest of d_sae random numbers. Memory: two dense arrays of shape `(samples, d_sae)`, and n of them with a share of 1 / n.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.
        generator: source of randomness on the CPU; the global one if None.
        share: (r, n) where these are every n-th of n times as many samples, from number r on. The draw is that of all of them,
            so each sample gets the support that it would get among all.

    Returns:
        Dense codes of shape `(samples, d_sae)`, in the dtype and on the device of the input.

    Raises:
        ValueError: the codes are not a matrix, or have NaN or infinite values.
    """
    chosen, (first, step) = supports(codes), share
    order = torch.rand(codes.shape[0] * step, codes.shape[1], generator=generator)[first::step].to(chosen.values.device)
    drawn = order.topk(chosen.indices.shape[1], dim=1).indices
    return chosen.values.new_zeros(codes.shape).scatter_(1, drawn, chosen.values)
