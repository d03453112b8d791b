"""Dictionaries, vectors and TSAEs that the tests of the room share."""

import torch

from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct

DEAD = 7  # in the middle of the dictionary


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric_of(d_in: int, seed: int = 5) -> AtomicInnerProduct:
    """A metric with a condition number of about a hundred, whose axes are not those of the space."""
    rotation = torch.linalg.qr(gaussian(d_in, d_in, seed=seed))[0]
    return AtomicInnerProduct((rotation * torch.logspace(-1, 1, d_in).double()) @ rotation.T)


def problem(
    samples: int = 60, d_sae: int = 40, d_in: int = 16, seed: int = 0, active: int = 5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors x around a bias that is not zero, a dictionary of atoms of very unequal norms, and the bias."""
    dictionary = gaussian(d_sae, d_in, seed=seed) * torch.logspace(-1, 1, d_sae).double()[:, None]
    codes = torch.zeros(samples, d_sae, dtype=torch.float64)
    chosen = gaussian(samples, d_sae, seed=seed + 1).argsort(1)[:, :active]
    values = (0.3 + gaussian(samples, active, seed=seed + 2).abs()) / dictionary.norm(dim=1)[chosen]
    codes.scatter_(1, chosen, values)
    bias = 3 * gaussian(d_in, seed=seed + 3)
    return codes @ dictionary + 0.2 * gaussian(samples, d_in, seed=seed + 4) + bias, dictionary, bias


@torch.no_grad()
def trained(
    dictionary: torch.Tensor, bias: torch.Tensor, metric: AtomicInnerProduct | None = None, level: float = 1.0
) -> ThresholdSAE:
    """A TSAE with an encoder near the dual one, thresholds of its own for each latent, and a dead latent in the middle."""
    sae = ThresholdSAE(dictionary.shape[1], len(dictionary), apply_b_dec_to_input=True).to(dictionary)
    matrix = torch.eye(dictionary.shape[1]).double() if metric is None else metric.matrix
    dual = dictionary @ matrix / ((dictionary @ matrix) * dictionary).sum(1, keepdim=True)
    noise = 0.1 * dual.norm(dim=1, keepdim=True) / dictionary.shape[1] ** 0.5
    sae.W_dec.copy_(dictionary)
    sae.W_enc.copy_((dual + noise * gaussian(*dictionary.shape, seed=11)).T)
    sae.b_dec.copy_(bias)
    sae.b_enc.copy_(0.01 * gaussian(len(dictionary), seed=12))
    sae.threshold.copy_(level * (0.5 + gaussian(len(dictionary), seed=13).abs()) / dictionary.norm(dim=1))
    sae.b_enc[DEAD] = -1e9
    return sae


def check_csr(codes: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Valid CSR: torch's own invariants (which ask for ascending columns), no stored zeros, all finite."""
    assert codes.layout == torch.sparse_csr
    assert codes.shape == shape
    assert codes.dtype == dtype
    torch._validate_sparse_csr_tensor_args(codes.crow_indices(), codes.col_indices(), codes.values(), shape)
    assert codes.values().all()
    assert codes.values().isfinite().all()


def squared_errors(
    y: torch.Tensor, dictionary: torch.Tensor, codes: torch.Tensor, metric: AtomicInnerProduct | None
) -> torch.Tensor:
    """‖y − f D‖_S² of each vector."""
    rest = y - codes.to_dense().to(y) @ dictionary
    matrix = torch.eye(y.shape[1]).double() if metric is None else metric.matrix
    return torch.einsum("nd,de,ne->n", rest, matrix.to(rest), rest)
