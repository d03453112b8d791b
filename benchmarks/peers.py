"""A peer's training step beside the encoder's product: `python benchmarks/peers.py saelens`, in the peer's own
environment.

No atomlab here; shape, data and sparsity are those of benchmarks/step.py: Gaussian vectors with E‖x‖² = 1, thresholds
at the calibrated quantile. `forward_backward_s` is loss and gradients through the peer's own code; the peers'
optimisers and projections are left out, in their favour.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def thresholds(x: Tensor, encoder: Tensor, l0: float) -> Tensor:
    """The value that each latent exceeds on a share l0/d_sae of the vectors."""
    rank = round(len(x) * (1 - l0 / encoder.shape[1]))
    return torch.cat([(x @ part).kthvalue(rank, dim=0).values for part in encoder.split(1024, 1)])


def saelens(x: Tensor, d_sae: int, l0: float) -> Callable[[], Tensor]:
    from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig  # pyright: ignore
    from sae_lens.saes.sae import TrainStepInput  # pyright: ignore

    config = JumpReLUTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, jumprelu_bandwidth=0.025)
    sae = JumpReLUTrainingSAE(config)
    with torch.no_grad():
        sae.threshold.copy_(thresholds(x, sae.W_enc, l0))
    step = TrainStepInput(x, {"l0": 1.0}, None, 0, False)

    def loss() -> Tensor:
        sae.zero_grad()
        return sae.training_forward_pass(step).loss

    return loss


def dictionary_learning(x: Tensor, d_sae: int, l0: float) -> Callable[[], Tensor]:
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # pyright: ignore

    trainer = JumpReluTrainer(1000, x.shape[1], d_sae, 0, "none", bandwidth=0.025, target_l0=l0, device="cpu")
    with torch.no_grad():
        trainer.ae.threshold.copy_(thresholds(x, trainer.ae.W_enc, l0))

    def loss() -> Tensor:
        trainer.ae.zero_grad()
        return trainer.loss(x, step=1)

    return loss


def overcomplete(x: Tensor, d_sae: int, l0: float) -> Callable[[], Tensor]:
    from overcomplete.sae import JumpSAE  # pyright: ignore

    sae = JumpSAE(x.shape[1], d_sae, bandwidth=0.025, encoder_module=_linear(x.shape[1], d_sae))
    with torch.no_grad():
        sae.thresholds.copy_(thresholds(x, sae.encoder.weight.T, l0).log())

    def loss() -> Tensor:
        sae.zero_grad()
        _, codes, x_hat = sae(x)
        return (x - x_hat).square().sum(1).mean() + codes.sum() * 0 + sae.thresholds.sum() * 0

    return loss


class _linear(torch.nn.Module):
    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(d_sae, d_in), dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x @ self.weight.T
        return z, z.relu()


def sparsify(x: Tensor, d_sae: int, l0: float) -> Callable[[], Tensor]:
    from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore

    sae: Any = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=d_sae, k=round(l0)))

    def loss() -> Tensor:
        sae.zero_grad()
        return sae(x).fvu

    return loss


PEERS = SimpleNamespace(
    saelens=saelens, dictionary_learning=dictionary_learning, overcomplete=overcomplete, sparsify=sparsify
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(vars(PEERS)))
    for name, kind, value in (("d-in", int, 768), ("d-sae", int, 12_288), ("batch", int, 4096), ("l0", float, 40.0)):
        parser.add_argument(f"--{name}", type=kind, default=value)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(arguments.batch, arguments.d_in) / arguments.d_in**0.5
    loss = getattr(PEERS, arguments.peer)(x, arguments.d_sae, arguments.l0)
    encoder = torch.randn(arguments.d_sae, arguments.d_in).T
    products, steps = [], []
    for _ in range(arguments.repeats + 1):
        begun = time.perf_counter()
        torch.mm(x, encoder)
        products.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        loss().backward()
        steps.append(time.perf_counter() - begun)
    product, step = median(products[1:]), median(steps[1:])
    figures = {"encoder_product_s": product, "forward_backward_s": step, "ratio": step / product}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
