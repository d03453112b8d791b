"""A peer's training step beside the encoder's product: `python benchmarks/peers.py saelens`, in the peer's own
environment.

No atomlab here; shape, data and sparsity are those of benchmarks/step.py: Gaussian vectors with E‖x‖² = 1, thresholds
at the calibrated quantile. `forward_backward_s` is loss and gradients through the peer's own code, with its own
sparsity term; `step_s` is what its trainer does for one batch: these, its clipping, its optimiser and its projection of
the decoder, without its logging, checkpoints and data loading.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

Peer = tuple[Callable[[], object], Callable[[], object]]  # loss and gradients; a whole step


def thresholds(x: Tensor, encoder: Tensor, l0: float) -> Tensor:
    """The value that each latent exceeds on a share l0/d_sae of the vectors."""
    rank = round(len(x) * (1 - l0 / encoder.shape[1]))
    return torch.cat([(x @ part).kthvalue(rank, dim=0).values for part in encoder.split(1024, 1)])


def saelens(x: Tensor, d_sae: int, l0: float) -> Peer:
    """JumpReLU; `SAETrainer` clips to 1 and steps Adam; decoder norms are left free."""
    from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig  # pyright: ignore
    from sae_lens.saes.sae import TrainStepInput  # pyright: ignore

    config = JumpReLUTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, jumprelu_bandwidth=0.025)
    sae = JumpReLUTrainingSAE(config)
    with torch.no_grad():
        sae.threshold.copy_(thresholds(x, sae.W_enc, l0))
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)
    batch = TrainStepInput(x, {"l0": 1.0}, None, 0, False)

    def gradients() -> None:
        sae.zero_grad()
        sae.training_forward_pass(batch).loss.backward()

    def step() -> None:
        gradients()
        clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    return gradients, step


def dictionary_learning(x: Tensor, d_sae: int, l0: float) -> Peer:
    """JumpReLU, target L0; `update` is its own step: parallel gradient, clipping, Adam, unit norms."""
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer  # pyright: ignore

    trainer = JumpReluTrainer(100_000, x.shape[1], d_sae, 0, "none", bandwidth=0.025, target_l0=l0, device="cpu")
    with torch.no_grad():
        trainer.ae.threshold.copy_(thresholds(x, trainer.ae.W_enc, l0))

    def gradients() -> None:
        trainer.ae.zero_grad()
        trainer.loss(x, step=1).backward()

    return gradients, lambda: trainer.update(1, x)


def overcomplete(x: Tensor, d_sae: int, l0: float) -> Peer:
    """JumpReLU with its `heaviside` L0 term, a linear encoder; `train_sae` clips to 1 and steps; the dictionary
    normalises its atoms in every forward pass."""
    from overcomplete.sae import JumpSAE, heaviside  # pyright: ignore

    encoder = Linear(x.shape[1], d_sae)
    sae = JumpSAE(x.shape[1], d_sae, kernel="rectangle", bandwidth=0.025, encoder_module=encoder)
    with torch.no_grad():
        sae.thresholds.copy_(thresholds(x, encoder.weight.T, l0).log())
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)

    def gradients() -> None:
        optimizer.zero_grad()
        z, _, x_hat = sae(x)
        active = heaviside(z, sae.thresholds.exp(), sae.kernel_fn, sae.bandwidth).sum(1).mean()
        ((x - x_hat).square().sum(1).mean() + (active / l0 - 1).square()).backward()

    def step() -> None:
        gradients()
        clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    return gradients, step


class Linear(torch.nn.Module):
    """An encoder as overcomplete wants it: pre-activations and codes."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(d_sae, d_in), dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x @ self.weight.T
        return z, z.relu()


def sparsify(x: Tensor, d_sae: int, l0: float) -> Peer:
    """TopK; its trainer projects the decoder, removes the parallel gradient and steps (here its option Adam)."""
    from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore

    sae: Any = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=d_sae, k=round(l0)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)

    def gradients() -> None:
        sae.zero_grad()
        sae(x).fvu.backward()

    def step() -> None:
        sae.set_decoder_norm_to_unit_norm()
        gradients()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()

    return gradients, step


PEERS: dict[str, Callable[[Tensor, int, float], Peer]] = {
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "overcomplete": overcomplete,
    "sparsify": sparsify,
}


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    for name, kind, value in (("d-in", int, 768), ("d-sae", int, 12_288), ("batch", int, 4096), ("l0", float, 40.0)):
        parser.add_argument(f"--{name}", type=kind, default=value)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(arguments.batch, arguments.d_in) / arguments.d_in**0.5
    gradients, step = PEERS[arguments.peer](x, arguments.d_sae, arguments.l0)
    encoder = torch.randn(arguments.d_sae, arguments.d_in).T
    works: tuple[Callable[[], object], ...] = (lambda: torch.mm(x, encoder), gradients, step)
    rounds = [[seconds(work) for work in works] for _ in range(arguments.repeats + 1)][1:]  # the first warms up
    product, loss, whole = (median(taken) for taken in zip(*rounds, strict=True))
    figures = {"encoder_product_s": product, "forward_backward_s": loss, "step_s": whole}
    figures |= {"forward_backward_ratio": loss / product, "step_ratio": whole / product}
    print(json.dumps({"peer": arguments.peer} | figures))


if __name__ == "__main__":
    main()
