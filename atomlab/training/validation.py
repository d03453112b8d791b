"""What a validation measures of a TSAE: the numbers of a table's row, under the same names, on validation vectors."""

import math
from typing import final

import torch
from torch import Tensor

from atomlab.groups import ALONE, Axis
from atomlab.metrics.by_name import (
    AtomGeometry,
    Number,
    flat,
    of_codes,
    of_reconstructions,
    restricted_isometry,
    values,
)
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.metrics.support_sizes import FiringShare
from atomlab.sae import SAE
from atomlab.sae.ops import decode_csr, encode_csr
from atomlab.theory import (
    AtomicInnerProduct,
    Supports,
    first_samples,
    random_codes,
    supports,
)

_OF_SIZES = ("certified_level_1", "stability_pairwise", "stability_per_atom")
_OF_SUPPORTS = ("certified_level_2a", "certified_level_2b", "certified_level_3", "certified_level_4")
_MEASURED = ("l0", "l0_median", "l0_q998", "empty", "dead", "single_sample", *_OF_SIZES)
_CERTIFIED = (*_OF_SUPPORTS, "isometry_ratio", "isometry_own", "identifiable_a_priori")


@final
class Measurement:
    """Measures one validation. All processes get the same numbers.

    Every number is over the sample that a table of the validation split would draw: the first `measured` vectors, and
    for certificates the first `dashboard` of these. A validation's batches come in random order and are dealt out to
    the processes in turn (`ActivationDataModule.val_dataloader`), so the first n vectors over all processes are those
    of `data.sample("validation", n)`. Vectors beyond them are not read.

    Names are those of a table's row (`atomlab.metrics.by_name`). `_random` at the end says that random atoms stand in
    for the trained ones, as many and of the same width, with codes of the same sizes and values on random supports. Each
    process draws those of all vectors and takes the ones of its own, so that no number depends on how many processes there are.

    Cost: a few passes of d_in·d_sae² FLOPs for coherence and restricted isometry, once; reconstruction and, in the
    S-norm, 4·d_in² float64 FLOPs for each measured vector; levels 3 and 4 for each certified one, twice with `null`.
    Memory: two float64 copies of the dictionary.

    Args:
        sae: TSAE of raw activations, on the device of the batches.
        metric: S.
        sizes: Vectors that are measured and certified, over all processes, random supports that are tried for the lower
            bound of δ_K, and the seed of these and of the random dictionary.
        null: Whether the numbers of random atoms are measured too.
        data: The processes that each see their share of the vectors.
    """

    def __init__(
        self,
        sae: SAE,
        metric: AtomicInnerProduct,
        sizes: SampleSizes = SampleSizes(),
        *,
        null: bool = False,
        data: Axis = ALONE.data,
    ) -> None:
        self.sae, self.sizes, self.data, self.share = sae, sizes, data, share_of(sizes.measured, data)
        self.measured_left = self.share
        self.certified_left = share_of(min(sizes.dashboard, sizes.measured), data)
        dictionary = sae.W_dec.detach()
        self.geometry = AtomGeometry.of(dictionary, metric)
        self.reconstructions = of_reconstructions(sae.d_in, metric).to(dictionary.device)
        self.measured, self.certified = [of_codes(_MEASURED, self.geometry)], of_codes(_CERTIFIED, self.geometry)
        self.random, self.generator = None, torch.Generator().manual_seed(sizes.seed)
        if null:
            random = AtomGeometry.random(dictionary, self.generator)
            self.measured.append(of_codes(_OF_SIZES, random, suffix="_random"))
            self.random = of_codes(_OF_SUPPORTS, random, suffix="_random")
        self.chosen: list[Supports] = []

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Adds a batch (batch, d_in) of this process, as far as it belongs to the sample."""
        batch = batch[: self.measured_left]
        if len(batch) == 0:
            return
        self.measured_left -= len(batch)
        codes = encode_csr(self.sae, batch)
        self.reconstructions.update(batch, decode_csr(codes, self.sae.W_dec, self.sae.b_dec))
        for collection in self.measured:
            collection.update(codes)
        if self.certified_left > 0:
            first = first_samples(codes, self.certified_left)
            self.certified_left -= first.shape[0]
            self.certified.update(first)
            self.chosen.append(supports(first))
            if self.random is not None:
                self.random.update(random_codes(first, self.generator, (self.data.rank, self.data.size)))

    def values(self) -> dict[str, float]:
        """Computes every number by its name, over all processes, all of which call this together. NaN where nothing was
        seen.
        """
        collections = [self.reconstructions, *self.measured, self.certified]
        collections += [] if self.random is None else [self.random]
        found: dict[str, float] = dict(self.geometry.numbers)
        for collection in collections:
            found |= flat(values(collection))
        return found | self._restricted_isometry(found)

    def of_atoms(self) -> dict[str, Tensor]:
        """Returns what differs from atom to atom, for histograms, each of shape `(d_sae,)`; all processes call this together.

        Returns:
            `threshold` of the TSAE of raw activations with atoms of unit S-norm; `log10_firing`, the common logarithm of
            the share of measured vectors that an atom fires on, −∞ where it fires on none; `coherence`, its largest |cos_S|
            with another atom.
        """
        dead = self.measured[0]["dead"]
        assert isinstance(dead, FiringShare)
        return {
            "threshold": self.sae.threshold.detach(),
            "log10_firing": firing_shares(dead, self.share - self.measured_left, self.data).log10(),
            "coherence": self.geometry.coherence.per_atom,
        }

    def _restricted_isometry(self, found: dict[str, float]) -> dict[str, float]:
        """The interval of δ_K at the median K; NaN where no certified vector has an atom."""
        interval: dict[str, Number] = {"low": math.nan, "high": math.nan}
        if not math.isnan(found["certified_level_4"]):
            k = max(1, int(found["l0_median"]))
            samples, seed = self.sizes.supports, self.sizes.seed
            interval = restricted_isometry(self.geometry, k, self.chosen, samples=samples, seed=seed)
        return flat({"restricted_isometry_k": interval})


def firing_shares(dead: FiringShare, seen: int, data: Axis) -> Tensor:
    """Computes the share of the vectors of all processes that each latent fires on, float64; all call this together.

    Args:
        dead: which has counted the firings on the vectors of this process.
        seen: how many these are.
        data: the processes that each see their share of the vectors.
    """
    counts = data.sum(torch.cat([dead.firing, dead.firing.new_tensor([seen])])).double()
    return counts[:-1] / counts[-1].clamp_min(1)


def share_of(count: int, data: Axis) -> int:
    """Computes how many of the first `count` vectors this process sees, of those that are dealt out in turn."""
    return (count - data.rank + data.size - 1) // data.size
