"""Chooses the implementation of the next step by the density of the last codes.

The density is counted and nothing is timed, so that a resumed run takes the same decisions.
"""

import logging
import math
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from atomlab.groups import Axis
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.kernels import kernels_for
from atomlab.sae.ops.operators import Operators
from atomlab.sae.ops.sparse import Sparse
from atomlab.sae.sparse_code import Code

Implementation = Literal["auto", "dense", "sparse", "screened"]
_log = logging.getLogger(__name__)
_PROBE = 256  # samples of the first batch whose density decides on the first step
_SCREEN_LIMIT = 0.04  # above this density the float32 dot products cost more than bfloat16 saves (docs/benchmarks.md)
_ROOM = 1.5  # the room for entries, as a multiple of the number that the density predicts
_ROWS = 7  # every seventh row of a dense code is counted: a prime, so that no process's rows are left out


@final
class DensitySwitch(nn.Module):
    """Chooses `Sparse` while few entries have a value or a gradient, and `Dense` otherwise.

    The density is the share of the `(batch, d_sae)` matrix with z > θ − ε/2. The switch keeps a running mean of it over
    about ten steps and over the data and latents of all processes, which is saved in checkpoints, and logs each change of
    implementation. The default limits were measured on a CPU.

    Args:
        enter: density below which the sparse implementation takes over.
        leave: density from which the dense one takes over again. Between the two limits nothing changes, so that noise
            does not switch back and forth.
        screened: passed on to `TorchKernels`; where it is None, codes above a fixed density are not screened.

    Raises:
        ValueError: not 0 ≤ enter ≤ leave.
    """

    def __init__(self, enter: float = 0.08, leave: float = 0.1, screened: bool | None = None) -> None:
        super().__init__()
        if not 0 <= enter <= leave:
            raise ValueError(f"A switch needs 0 <= enter <= leave, got enter={enter} and leave={leave}.")
        self.enter, self.leave, self.screened = enter, leave, screened
        self.density, self.is_sparse = math.nan, False

    @classmethod
    def of(cls, implementation: Implementation) -> "DensitySwitch":
        """Makes the switch that an option's word means.

        Args:
            implementation: "auto" for the measured limits; "dense" for `Dense` throughout; "sparse" or "screened" for
                `Sparse` throughout, without or with a bfloat16 screen where `TorchKernels` are used.

        Returns:
            A new switch, which has not seen a code yet.

        Raises:
            ValueError: the word is none of these.
        """
        if implementation == "auto":
            return cls()
        if implementation == "dense":
            return cls(0.0, 0.0)
        if implementation in ("sparse", "screened"):
            return cls(math.inf, math.inf, screened=implementation == "screened")
        raise ValueError(
            f"training.implementation={implementation} is unknown: choose auto, dense, sparse or screened."
        )

    def choose(self, sae: ThresholdSAE, x: Tensor) -> Operators:
        """Chooses the implementation for a batch.

        Before the first step, the density of the first samples of the batch is counted.

        Args:
            sae: the TSAE.
            x: the batch, shape `(batch, d_in)`.

        Returns:
            `Dense`, or `Sparse` with the kernels for the device of the batch.
        """
        if math.isnan(self.density):
            data = sae.shard.groups.data
            with torch.no_grad():  # its first samples over all processes, which are dealt out in turn
                self.observe(sae, Dense().encode(sae, x[: (_PROBE - data.rank + data.size - 1) // data.size]))
        if not self.is_sparse:
            return Dense()
        too_many = self.screened is None and self.density > _SCREEN_LIMIT
        room = round(_ROOM * self.density * len(x) * sae.d_sae) + sae.d_sae
        return Sparse(kernels_for(x.device, False if too_many else self.screened, room))

    @torch.no_grad()
    def observe(self, sae: ThresholdSAE, code: Code) -> None:
        """Adds the density of a step's code to the running mean and decides on the next step.

        Args:
            sae: the TSAE.
            code: the code of the batch. Of a dense one every seventh row of the whole batch is counted, so that the number of
                processes does not change the decision.

        Cost: one all-reduce of two numbers where there are several processes.
        """
        if code.entries is None:
            rows = code.z[_every_seventh(sae.shard.groups.data)]
            counts = [torch.count_nonzero(rows > sae.threshold - sae.bandwidth / 2), rows.numel()]
        else:
            counts = [len(code.z), code.batch * sae.d_sae]
        entries, places = sae.shard.groups.everyone.sum(torch.tensor(counts, device=code.z.device))
        found = entries / places
        self.density = float(found) if math.isnan(self.density) else 0.9 * self.density + 0.1 * float(found)
        sparse = self.density < (self.leave if self.is_sparse else self.enter)
        if sparse != self.is_sparse:
            _log.debug("The step is %s from now on (density %.2g).", "sparse" if sparse else "dense", self.density)
        self.is_sparse = sparse

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the density and the decision, for a checkpoint."""
        return {"density": self.density, "is_sparse": self.is_sparse}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_extra_state` returned."""
        self.density, self.is_sparse = float(state["density"]), bool(state["is_sparse"])


def _every_seventh(data: Axis) -> slice:
    """Which rows of this process are every seventh ones of the whole batch, whose rows are dealt out to the processes in turn."""
    own = [row for row in range(_ROWS) if (row * data.size + data.rank) % _ROWS == 0]
    return slice(own[0], None, _ROWS // math.gcd(data.size, _ROWS)) if own else slice(0)
