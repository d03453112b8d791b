"""The architectures that a TSAE is compared with: ReLU, TopK, BatchTopK and Gated.

- `baseline_sae`: the autoencoder, `BaselineSAE`, one class for all four; what differs is its activation.
- `activations`: the four activations, each a small module with its own parameters.

To add an architecture, write an activation with the same methods, and name it in `Activation` and in
`atomlab.sae.ops.baseline_objective`, which has what each adds to the loss.
"""

from atomlab.sae.baselines.activations import Activation, BatchTopK, Gated, Relu, TopK
from atomlab.sae.baselines.baseline_sae import SAE, BaselineSAE

__all__ = ["SAE", "Activation", "BaselineSAE", "BatchTopK", "Gated", "Relu", "TopK"]
