"""What a validation measures of a TSAE whose latents several processes share, without any of them having it whole."""

from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from atomlab.groups import Axis
from atomlab.metrics.by_name import flat, of_reconstructions, values
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.metrics.support_sizes import FiringShare, SupportSizes
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import decode_csr, encode_csr
from atomlab.sae.shard import Shard
from atomlab.sae.sparse_code import csr, entry_rows, offsets
from atomlab.theory import AtomicInnerProduct
from atomlab.training.validation import firing_shares, share_of

_BLOCK = 1024  # atoms that travel at a time


@final
class ShardMeasurement:
    """Measures one validation on shards of the latents. All processes get the same numbers.

    The vectors and the names are those of `Measurement`. There are those numbers that can be summed over shards: `r2`,
    `r2_uncentred`, `r2_s`; `l0`, `l0_median`, `l0_q998`, `empty`; `dead`, `single_sample`; and `coherence` and
    `coherence_median`, for which the atoms of each process pass by all others. Certificates, stability, isometry and random
    controls need the dictionary in one place: the closing table has them, from the consolidated file.

    Cost: 2·d_in·d_sae² float64 FLOPs for the coherence, over all processes. Memory: a float64 copy of the own atoms.
    Communication: d_in numbers and three for each active latent of a measured vector, and the dictionary once.

    Args:
        sae: the shard of the TSAE of raw activations, on the device of the batches.
        metric: S.
        sizes: how many vectors are measured, over all processes.
    """

    def __init__(self, sae: ThresholdSAE, metric: AtomicInnerProduct, sizes: SampleSizes = SampleSizes()) -> None:
        self.sae, self.metric, self.data = sae, metric, sae.shard.groups.data
        self.share = self.left = share_of(sizes.measured, self.data)
        d_sae = sae.shard.d_sae
        self.reconstructions = of_reconstructions(sae.d_in, metric)
        found: dict[str, Metric | MetricCollection] = {
            "l0": SupportSizes(d_sae, "mean"),
            "l0_median": SupportSizes(d_sae, "median"),
            "l0_q998": SupportSizes(d_sae, "q998"),
            "empty": SupportSizes(d_sae, "empty"),
            "dead": FiringShare(d_sae, 0),
            "single_sample": FiringShare(d_sae, 1),
        }
        names = list(found)
        self.of_codes = MetricCollection(found, compute_groups=[names[:4], names[4:]])
        for collection in (self.reconstructions, self.of_codes):
            collection.to(sae.W_dec.device)
            for metric_of_data in collection.values(copy_state=False):
                metric_of_data.process_group = self.data.group  # the others see the same vectors

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Adds a batch (batch, d_in) of this process, as far as it belongs to the sample."""
        batch = batch[: self.left]
        if len(batch) == 0:
            return
        self.left -= len(batch)
        own = encode_csr(self.sae, batch)
        partial = decode_csr(own, self.sae.W_dec, torch.zeros_like(self.sae.b_dec))
        self.reconstructions.update(batch, self.sae.shard.total(partial) + self.sae.b_dec)
        self.of_codes.update(whole_codes(own, self.sae.shard))

    def values(self) -> dict[str, float]:
        """Computes every number by its name; all processes call this together. NaN where nothing was seen."""
        per_atom = torch.cat(self.sae.shard.groups.latents.gather(self._coherence))
        found = {"coherence": float(per_atom.max()), "coherence_median": float(per_atom.median())}
        for collection in (self.reconstructions, self.of_codes):
            found |= flat(values(collection))
        return found

    def of_atoms(self) -> dict[str, Tensor]:
        """Returns what differs from atom to atom, as `Measurement.of_atoms`, for all latents; all call this together."""
        latents, dead = self.sae.shard.groups.latents, self.of_codes["dead"]
        assert isinstance(dead, FiringShare)
        return {
            "threshold": torch.cat(latents.gather(self.sae.threshold.detach())),
            "log10_firing": firing_shares(dead, self.share - self.left, self.data).log10(),
            "coherence": torch.cat(latents.gather(self._coherence)),
        }

    @cached_property
    def _coherence(self) -> Tensor:
        return shard_coherence(self.metric.whiten(self.sae.W_dec.detach().double()), self.sae.shard.groups.latents)


@torch.no_grad()
def shard_coherence(atoms: Float[Tensor, "own d_in"], latents: Axis) -> Float[Tensor, " own"]:
    """Computes the largest |cos| of each own atom with any other atom of all processes, which call this together.

    Args:
        atoms: the own atoms, none of them zero, in coordinates in which the metric is Euclidean, shape `(own, d_in)`, float64.
        latents: the processes that share the dictionary.

    Returns:
        The largest |cos|, shape `(own,)`, float64, exact up to rounding.

    Cost: 2·own·d_sae·d_in FLOPs; memory of an `(own, 1024)` matrix and of 1024 atoms of each process.
    """
    atoms = torch.nn.functional.normalize(atoms, dim=1)
    longest = max(len(sizes) for sizes in latents.gather(atoms[:, 0]))
    largest = atoms.new_zeros(len(atoms))
    for first in range(0, longest, _BLOCK):
        for rank, block in enumerate(latents.gather(atoms[first : first + _BLOCK])):
            cosines = (atoms @ block.T).abs_()
            if rank == latents.rank:
                same = torch.arange(len(block), device=atoms.device)
                cosines[first + same, same] = 0
            if len(block):
                largest = torch.maximum(largest, cosines.amax(1))
    return largest


@torch.no_grad()
def whole_codes(own: Tensor, shard: Shard) -> Tensor:
    """Puts together the codes of all processes that share a dictionary, which call this together.

    Args:
        own: CSR, shape `(samples, own latents)`, of the same vectors in all of them.
        shard: which latents these are.

    Returns:
        CSR, shape `(samples, d_sae)`, columns ascending within a row, the same in all of them.

    Communication: three numbers for each active latent.
    """
    latents, samples = shard.groups.latents, own.shape[0]
    rows, columns, found = (
        torch.cat(latents.gather(part)) for part in (entry_rows(own), own.col_indices() + shard.first, own.values())
    )
    order = rows.sort(stable=True).indices
    return csr(offsets(rows[order], samples), columns[order], found[order], (samples, shard.d_sae))
