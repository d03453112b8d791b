"""Gaussian vectors that stand in for activations: with their mean and covariance, and without their structure."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.activations.store.moments import Moments


def gaussian_vectors(moments: Moments, count: int, generator: torch.Generator) -> Float[Tensor, "count d_in"]:
    """Draws vectors from the normal distribution with given moments: the data without any structure beyond these.

    Args:
        moments: mean (d_in,) and uncentred second moment (d_in, d_in) of the data.
        count: number of vectors.
        generator: random numbers, on the CPU.

    Returns:
        (count, d_in) float32.

    Cost: an eigendecomposition, O(d_in³), and 2·count·d_in² FLOPs.
    """
    covariance = moments.second_moment - torch.outer(moments.mean, moments.mean)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    noise = torch.randn(count, len(root), generator=generator)
    return noise @ root.float() + moments.mean.float()
