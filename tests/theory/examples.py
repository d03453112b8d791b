"""Random dictionaries and codes that the certificates are tried on."""

import torch

KINDS = ("plain", "low", "nearly orthonormal", "correlated", "near twins", "twins", "near dependent")


def example(seed: int, n: int, d: int, kind: str, samples: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    """A dictionary (n or more, d) and codes of 0 to 6 atoms, uneven in size; float64."""
    generator = torch.Generator().manual_seed(seed)

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dictionary = gaussian(n, d) * (gaussian(n, 1).abs() + 0.5)
    if kind == "low":
        dictionary = torch.cat([torch.eye(d, dtype=torch.float64), dictionary[: max(2, n - d)]])
    if kind == "nearly orthonormal":
        dictionary = torch.linalg.qr(gaussian(d, d))[0][:n] + 0.01 * dictionary[:d]
    if kind == "correlated":
        dictionary = dictionary + 2 * gaussian(1, d)
    if kind == "near twins":
        dictionary[1] = dictionary[0] + 1e-7 * dictionary[1]
    if kind == "twins":
        dictionary[1] = 2 * dictionary[0]
    if kind == "near dependent":
        dictionary[2] = dictionary[0] + dictionary[1] + 1e-6 * dictionary[2]
    codes = torch.zeros(samples, len(dictionary), dtype=torch.float64)
    for i, row in enumerate(codes):
        k = min(i % 7, len(dictionary))
        row[torch.randperm(len(dictionary), generator=generator)[:k]] = 0.1 + 3 * torch.rand(
            k, generator=generator, dtype=torch.float64
        )
    return dictionary, codes
