"""Threshold-activated sparse autoencoders (TSAEs): the model, its losses and the arithmetic of a training step.

- `autoencoder`: the model, `ThresholdSAE`. `encoder`, `decoder`: what any SAE does there.
- `baselines`: the architectures that it is compared with, `BaselineSAE` with one of four activations.
- `thresholding`: the activation σ_θ and the step H, with their straight-through gradients.
- `losses`: the reconstruction error, the sparsity terms, the incoherence of the atoms and the term for dead latents.
- `calibration`: thresholds from data, each for itself or all by one factor.
- `origin`: where an SAE that was read from files comes from.
- `input_transform`: the coordinates that a TSAE is trained in, and `fold`, which brings it back to raw activations.
- `sparse_code`: the code of a batch, dense or as a list of entries.
- `ops`: the encoder and the decoder of a training step, once with whole matrices and once with active entries only.

To add a sparsity term, write a frozen dataclass in `losses` that is a `Sparsity`; to add an implementation of the
training step, write one of `ops.Operators`.
"""

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.baselines import SAE, BaselineSAE, BatchTopK, Gated, Relu, TopK
from atomlab.sae.calibration import calibrate_thresholds_, l0_number, rescale_thresholds_
from atomlab.sae.decoder import decoder_norms
from atomlab.sae.input_transform import InputTransform, fold
from atomlab.sae.losses import (
    L0,
    Incoherence,
    Sparsity,
    Tanh,
    TargetL0,
    incoherence_penalty,
    mean_l0,
    pre_activation_penalty,
    reconstruction_loss,
)
from atomlab.sae.origin import Origin
from atomlab.sae.thresholding import step, threshold_activation

__all__ = [
    "L0",
    "SAE",
    "BaselineSAE",
    "BatchTopK",
    "Gated",
    "Incoherence",
    "InputTransform",
    "Origin",
    "Relu",
    "Sparsity",
    "Tanh",
    "TargetL0",
    "ThresholdSAE",
    "TopK",
    "calibrate_thresholds_",
    "decoder_norms",
    "fold",
    "incoherence_penalty",
    "l0_number",
    "mean_l0",
    "pre_activation_penalty",
    "reconstruction_loss",
    "rescale_thresholds_",
    "step",
    "threshold_activation",
]
