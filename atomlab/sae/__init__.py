"""Threshold-activated sparse autoencoders."""

from atomlab.sae.autoencoder import ThresholdSAE, decoder_norms
from atomlab.sae.initialisation import calibrate_thresholds_
from atomlab.sae.losses import L0, Sparsity, Tanh, TargetL0, mean_l0, pre_activation_penalty, reconstruction_loss
from atomlab.sae.preprocessing import InputTransform, fold, read_transform
from atomlab.sae.serialisation import load_config, load_sae, sae_of_weights, save_sae
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
    "load_config",
    "load_sae",
    "mean_l0",
    "pre_activation_penalty",
    "read_transform",
    "reconstruction_loss",
    "sae_of_weights",
    "save_sae",
    "step",
    "threshold_activation",
]
