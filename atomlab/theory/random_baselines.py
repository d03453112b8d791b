"""What chance gives: dictionaries and codes with the sizes of the real ones and no structure."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.theory.supports import supports


def random_dictionary(d_sae: int, d_in: int, generator: torch.Generator | None = None) -> Float[Tensor, "d_sae d_in"]:
    """Independent atoms, uniform on the unit sphere: the null of every geometric number. Uniform on the unit sphere of
    a metric S, they have in S the geometry that these have in the Euclidean one. Time and memory O(d_sae·d_in).
    """
    return torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)


def random_codes(codes: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "samples d_sae"]:
    """Codes with the sizes and values of these, sample by sample, on supports drawn uniformly: with `random_dictionary`
    the null of every certified rate. Dense. Time: a selection of the K largest of d_sae numbers a sample; memory
    2·samples·d_sae.

    Args:
        codes: (samples, d_sae), dense or CSR.
        generator: on the CPU.
    """
    chosen = supports(codes)
    order = torch.rand(codes.shape, generator=generator).to(chosen.values.device)
    drawn = order.topk(chosen.indices.shape[1], dim=1).indices
    return chosen.values.new_zeros(codes.shape).scatter_(1, drawn, chosen.values)
