"""What a validation or a test epoch measures of a TSAE: streaming numbers on every vector, certificates on the
first.
"""

from typing import final

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from atomlab.metrics import (
    CertifiedRate,
    DeadLatents,
    ExplainedVariance,
    IsometryRatio,
    L0Histogram,
    MutualCoherence,
    RestrictedIsometry,
    Stability,
    SupportIsometry,
    UniformlyCertifiedRate,
    WindowRate,
)
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, coherence_statistics, random_codes, random_dictionary


@final
class Measurement:
    """One epoch's numbers, the same on every process. Streaming: R², L0, dead latents, q*, levels 1 and 2, the isometry
    of the codes. On the first `certificate_samples` vectors: levels 3 and 4, δ(Λ), threshold windows.

    Names that end in `_null` are the same numbers for a random dictionary of the same n and d and codes of the same
    sizes (and values, at random latents).

    Args:
        sae: of raw activations, on the device of the batches.
        metric: S.
        certificate_samples: vectors, over all processes, for the dearer numbers.
        null: with those of the random dictionary for levels 3 and 4, too.
    """

    def __init__(
        self, sae: ThresholdSAE, metric: AtomicInnerProduct, *, certificate_samples: int = 256, null: bool = False
    ) -> None:
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.sae, self.metric, self.remaining = sae, metric, certificate_samples // processes
        dictionary = sae.W_dec.detach()
        generator = torch.Generator().manual_seed(0)
        self.random = random_dictionary(sae.d_sae, sae.d_in, generator).to(dictionary) if null else None
        self.generator = generator
        explained = {"r2": ExplainedVariance(sae.d_in), "r2_s_norm": ExplainedVariance(sae.d_in, metric)}
        self.reconstruction = MetricCollection({**explained}, compute_groups=False)
        sizes = {"support_sizes": L0Histogram(sae.d_sae), **_of_sizes(dictionary, metric, "")}
        sizes |= {} if self.random is None else _of_sizes(self.random, None, "_null")
        streaming = sizes | {"dead": DeadLatents(sae.d_sae), "isometry_ratio": IsometryRatio(dictionary, metric)}
        groups = [list(sizes), ["dead"], ["isometry_ratio"]]  # the first keep the same counts of support sizes
        self.streaming = MetricCollection(streaming, compute_groups=groups)
        certificates = {
            **_of_codes(dictionary, metric, ""),
            "support_isometry": SupportIsometry(dictionary, metric),
            "threshold_window": WindowRate(dictionary, metric),
        }
        self.certificates = MetricCollection(certificates, compute_groups=False)
        self.chance = None
        if self.random is not None:
            self.chance = MetricCollection({**_of_codes(self.random, None, "_null")}, compute_groups=False)
        for collection in filter(None, (self.reconstruction, self.streaming, self.certificates, self.chance)):
            collection.to(dictionary.device)

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        codes = self.sae.encode(batch)
        self.reconstruction.update(batch, self.sae.decode(codes))
        self.streaming.update(codes)
        if self.remaining > 0:
            chosen = codes[: self.remaining]
            self.certificates.update(chosen)
            if self.chance is not None:
                self.chance.update(random_codes(chosen, self.generator))
            self.remaining -= len(chosen)

    def values(self) -> dict[str, float]:
        """Everything by name; NaN where nothing was seen."""
        values: dict[str, float] = {}
        for collection in filter(None, (self.reconstruction, self.streaming, self.certificates, self.chance)):
            for name, measure in collection.items():
                if isinstance(measure, L0Histogram):
                    values |= {"l0": measure.mean()} | self._geometry(
                        max(1, min(measure.quantile(0.5), self.sae.d_sae))
                    )
                else:
                    values |= _named(name, measure.compute())
        return values

    def _geometry(self, k: int) -> dict[str, float]:
        """Coherence and the interval of δ_K at the median K."""
        coherence, isometry = MutualCoherence(self.metric), RestrictedIsometry(self.metric)
        coherence.update(self.sae.W_dec.detach())
        isometry.update(self.sae.W_dec.detach(), k)
        lower, upper = isometry.compute().tolist()
        interval = {"restricted_isometry_lower": lower, "restricted_isometry_upper": upper}
        return {"coherence": float(coherence.compute())} | interval


def _of_sizes(dictionary: Tensor, metric: AtomicInnerProduct | None, suffix: str) -> dict[str, Metric]:
    """What depends on the dictionary and on support sizes alone."""
    known = coherence_statistics(dictionary, metric)
    return {
        f"certified_level_1{suffix}": UniformlyCertifiedRate(dictionary, "coherence", statistics=known),
        f"certified_level_2a{suffix}": UniformlyCertifiedRate(dictionary, "babel_unique", statistics=known),
        f"certified_level_2b{suffix}": UniformlyCertifiedRate(dictionary, "babel_recovery", statistics=known),
        f"stability_pairwise{suffix}": Stability(dictionary, "pairwise", statistics=known),
        f"stability_per_atom{suffix}": Stability(dictionary, "per_atom", statistics=known),
    }


def _of_codes(dictionary: Tensor, metric: AtomicInnerProduct | None, suffix: str) -> dict[str, Metric]:
    return {
        f"certified_level_3{suffix}": CertifiedRate(dictionary, "exact_recovery", metric),
        f"certified_level_4{suffix}": CertifiedRate(dictionary, "dual_certificate", metric),
    }


def _named(name: str, value: Tensor | dict[str, Tensor]) -> dict[str, float]:
    if isinstance(value, dict):
        return {f"{name}_{key}": float(part) for key, part in value.items()}
    return {name: float(value)}
