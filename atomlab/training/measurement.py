"""What a validation measures of a TSAE: streaming numbers on every vector, dearer ones on the first."""

from typing import final

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from atomlab.metrics import (
    CertifiedRate,
    DeadLatents,
    ExplainedVariance,
    IsometryDistribution,
    L0Histogram,
    RestrictedIsometry,
    Stability,
    UniformlyCertifiedRate,
    WindowRate,
)
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import decode_csr, encode_csr
from atomlab.theory import (
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_statistics,
    first_samples,
    random_codes,
    random_dictionary,
)


@final
class Measurement:
    """One epoch's numbers, the same on every process. On every vector: R², L0, dead latents, q*, levels 1 and 2, the
    isometry of the codes. On the first `s_norm_samples`: R² in the S-norm, whose two float64 products (d_in, d_in) a
    vector would cost as much as reconstructing at small expansions. On the first `certificate_samples`: levels 3 and 4,
    δ(Λ), threshold windows. Once: the dictionary's coherence, d_in·d_sae² FLOPs, and the interval of δ_K.

    The first vectors are a random sample, since a validation's batches come in random order
    (`ActivationDataModule.val_dataloader`): the first n over all processes are the n validation vectors that a table
    with `sample_sizes.measured=n` draws, so what has one name in both is measured on one sample where n is the same.

    Names that end in `_null` are the same numbers for a random dictionary of the same n and d and codes of the same
    sizes (and values, at random latents).

    Args:
        sae: of raw activations, on the device of the batches.
        metric: S.
        certificate_samples: vectors, over all processes.
        s_norm_samples: vectors, over all processes; all if None.
        null: with those of the random dictionary for levels 3 and 4, too.
    """

    def __init__(
        self,
        sae: ThresholdSAE,
        metric: AtomicInnerProduct,
        *,
        certificate_samples: int = 256,
        s_norm_samples: int | None = 4096,
        null: bool = False,
    ) -> None:
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.sae = sae
        self.certified_left = certificate_samples // processes
        self.s_norm_left = float("inf") if s_norm_samples is None else s_norm_samples // processes
        dictionary = sae.W_dec.detach()
        self.generator = torch.Generator().manual_seed(0)
        self.random = random_dictionary(sae.d_sae, sae.d_in, self.generator).to(dictionary) if null else None
        self.known = coherence_statistics(dictionary, metric)
        self.reconstruction = MetricCollection({"r2": ExplainedVariance(sae.d_in)}, compute_groups=False)
        self.s_norm = MetricCollection({"r2_s_norm": ExplainedVariance(sae.d_in, metric)}, compute_groups=False)
        sizes = {"support_sizes": L0Histogram(sae.d_sae), **_of_sizes(dictionary, self.known, "")}
        sizes |= {} if self.random is None else _of_sizes(self.random, coherence_statistics(self.random), "_null")
        self.white = metric.whiten(dictionary.double())  # once for all that follows
        ratio = IsometryDistribution(self.white.to(dictionary.dtype), "ratio")
        groups = [list(sizes), ["dead"], ["isometry_ratio"]]  # the first keep the same counts of support sizes
        self.streaming = MetricCollection(
            sizes | {"dead": DeadLatents(sae.d_sae), "isometry_ratio": ratio}, compute_groups=groups
        )
        certificates = {
            **_of_codes(self.white, ""),
            "support_isometry": IsometryDistribution(self.white, "constant"),
            "threshold_window": WindowRate(self.white, coherence=self.known.coherence_bound),
        }
        self.certificates = MetricCollection(certificates, compute_groups=False)
        self.chance = None
        if self.random is not None:
            self.chance = MetricCollection({**_of_codes(self.random, "_null")}, compute_groups=False)
        for collection in self._collections():
            collection.to(dictionary.device)

    def _collections(self) -> list[MetricCollection]:
        found = (self.reconstruction, self.s_norm, self.streaming, self.certificates, self.chance)
        return [collection for collection in found if collection is not None]

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        codes = encode_csr(self.sae, batch)
        x_hat = decode_csr(codes, self.sae.W_dec, self.sae.b_dec)
        self.reconstruction.update(batch, x_hat)
        self.streaming.update(codes)
        if self.s_norm_left > 0:
            count = int(min(self.s_norm_left, len(batch)))
            self.s_norm.update(batch[:count], x_hat[:count])
            self.s_norm_left -= count
        if self.certified_left > 0:
            chosen = first_samples(codes, self.certified_left)
            self.certificates.update(chosen)
            if self.chance is not None:
                self.chance.update(random_codes(chosen, self.generator))
            self.certified_left -= chosen.shape[0]

    def values(self) -> dict[str, float]:
        """Everything by name; NaN where nothing was seen."""
        values: dict[str, float] = {}
        for collection in self._collections():
            for name, measure in collection.items():
                if isinstance(measure, L0Histogram):
                    k = max(1, min(measure.quantile(0.5), self.sae.d_sae))
                    values |= {"l0": measure.mean()} | self._geometry(k)
                else:
                    values |= _named(name, measure.compute())
        return values

    def _geometry(self, k: int) -> dict[str, float]:
        """Coherence and the interval of δ_K at the median K."""
        isometry = RestrictedIsometry(statistics=self.known)
        isometry.update(self.white, k)
        lower, upper = isometry.compute().tolist()
        interval = {"restricted_isometry_lower": lower, "restricted_isometry_upper": upper}
        return {"coherence": self.known.coherence} | interval


def _of_sizes(dictionary: Tensor, known: CoherenceStatistics, suffix: str) -> dict[str, Metric]:
    """What depends on the dictionary and on support sizes alone."""
    return {
        f"certified_level_1{suffix}": UniformlyCertifiedRate(dictionary, "coherence", statistics=known),
        f"certified_level_2a{suffix}": UniformlyCertifiedRate(dictionary, "babel_unique", statistics=known),
        f"certified_level_2b{suffix}": UniformlyCertifiedRate(dictionary, "babel_recovery", statistics=known),
        f"stability_pairwise{suffix}": Stability(dictionary, "pairwise", statistics=known),
        f"stability_per_atom{suffix}": Stability(dictionary, "per_atom", statistics=known),
    }


def _of_codes(white: Tensor, suffix: str) -> dict[str, Metric]:
    return {
        f"certified_level_3{suffix}": CertifiedRate(white, "exact_recovery"),
        f"certified_level_4{suffix}": CertifiedRate(white, "dual_certificate"),
    }


def _named(name: str, value: Tensor | dict[str, Tensor]) -> dict[str, float]:
    if isinstance(value, dict):
        return {f"{name}_{key}": float(part) for key, part in value.items()}
    return {name: float(value)}
