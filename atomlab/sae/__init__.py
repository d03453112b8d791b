"""Threshold-activated sparse autoencoders."""

from atomlab.sae.autoencoder import ThresholdSAE, decoder_norms
from atomlab.sae.calibration import calibrate_thresholds_
from atomlab.sae.input_transform import InputTransform, fold
from atomlab.sae.losses import L0, Sparsity, Tanh, TargetL0, mean_l0, pre_activation_penalty, reconstruction_loss
from atomlab.sae.thresholding import step, threshold_activation

__all__ = [
    "L0",
    "InputTransform",
    "Sparsity",
    "Tanh",
    "TargetL0",
    "ThresholdSAE",
    "calibrate_thresholds_",
    "decoder_norms",
    "fold",
    "mean_l0",
    "pre_activation_penalty",
    "reconstruction_loss",
    "step",
    "threshold_activation",
]
