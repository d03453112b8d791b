"""Builds the SAEs that a TSAE is compared with from the tensors of a checkpoint, and checks every tensor first."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from atomlab.interop.sae_from_tensors import finite_float32
from atomlab.sae import BaselineSAE, BatchTopK, Gated, Relu, TopK


@torch.no_grad()
def baseline_of_weights(weights: Mapping[str, Tensor], source: Path) -> BaselineSAE:
    """Builds the `BaselineSAE` that has these parameters and buffers, in float32; their names say which activation it has.

    Args:
        weights: W_enc, b_enc, W_dec, b_dec; and `activation.r_mag` and `activation.b_mag` (Gated), `activation.k` (TopK),
            this and `activation.threshold` (BatchTopK), or none of them (ReLU).
        source: the file that they come from. Error messages name it.

    Returns:
        The SAE, on the CPU; d_in and d_sae are read from the shape of W_dec.

    Raises:
        ValueError: a tensor is missing, unknown, of the wrong shape or kind, or not finite in float32.
    """
    if weights.get("W_dec", torch.empty(0)).ndim != 2 or not weights["W_dec"].numel():
        raise ValueError(f"{source} has no W_dec of shape (d_sae, d_in): expected the weights of an SAE.")
    d_sae, d_in = weights["W_dec"].shape
    if "activation.r_mag" in weights:
        activation = Gated(d_sae)
    elif "activation.threshold" in weights:
        activation = BatchTopK(_whole(weights, source))
    else:
        activation = TopK(_whole(weights, source)) if "activation.k" in weights else Relu()
    sae = BaselineSAE(d_in, d_sae, activation)
    expected = sae.state_dict()
    if missing := sorted(set(expected) - set(weights)):
        raise ValueError(
            f"{source} has no {', '.join(missing)}: expected {', '.join(expected)}, found {', '.join(weights)}."
        )
    if unknown := sorted(set(weights) - set(expected)):
        raise ValueError(
            f"{source} has {', '.join(unknown)}, which this SAE does not have: expected {', '.join(expected)}."
        )
    floats = {
        name: finite_float32(weights[name], value.shape, f"{source}: {name}")
        for name, value in expected.items()
        if value.is_floating_point()
    }
    sae.load_state_dict(expected | floats)
    return sae


def _whole(weights: Mapping[str, Tensor], source: Path) -> int:
    k = weights.get("activation.k", torch.empty(0))
    if k.shape != () or k.is_floating_point() or int(k) < 1:
        raise ValueError(f"{source}: activation.k should be a whole number of latents, 1 or more, found {k}.")
    return int(k)
