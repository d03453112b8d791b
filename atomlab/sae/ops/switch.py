"""Which implementation the next step uses: by the counted density of the last steps, never by timing, so that a
resumed run decides alike."""

import logging
import math
from typing import Any, Literal, final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.kernels import kernels_for
from atomlab.sae.ops.operators import Operators
from atomlab.sae.ops.sparse import Sparse
from atomlab.sae.sparse_code import Code

Implementation = Literal["auto", "dense", "sparse", "screened"]
_log = logging.getLogger(__name__)
_PROBE = 256  # samples on which the first step's density is counted
_SCREEN_LIMIT = (
    0.04  # density beyond which recomputing the candidates costs more than bfloat16 saves (docs/benchmarks.md)
)
_ROOM = 1.5  # times the entries of the last steps are made room for
_ROWS = 8  # of a dense code, one row in so many is counted


@final
class DensitySwitch(nn.Module):
    """`Sparse` while few entries carry a value or a gradient, `Dense` otherwise.

    `Sparse` runs on Triton's kernels on a CUDA device where Triton is installed. The limits were measured on a CPU.
    Density = share of the (batch, d_sae) matrix with z > θ − ε/2, a running mean over about ten steps and over all
    processes. Its state is in the checkpoint. A switch is logged.

    Args:
        enter: density below which the sparse implementation takes over.
        leave: density from which on the dense one does; more than `enter`, so that noise does not switch back and
            forth.
        screened: see `TorchKernels`.

    Raises:
        ValueError: `enter` above `leave`.
    """

    def __init__(self, enter: float = 0.08, leave: float = 0.1, screened: bool | None = None) -> None:
        super().__init__()
        if not 0 <= enter <= leave:
            raise ValueError(f"A switch needs 0 <= enter <= leave, got enter={enter} and leave={leave}.")
        self.enter, self.leave, self.screened = enter, leave, screened
        self.density, self.is_sparse = math.nan, False

    @classmethod
    def of(cls, implementation: Implementation) -> "DensitySwitch":
        """auto: the measured limits; otherwise one implementation throughout, screened or not where that is a choice.

        Raises:
            ValueError: another word.
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
        """The implementation for the batch x; before the first step some of its rows are counted."""
        if math.isnan(self.density):
            with torch.no_grad():
                self.observe(sae, Dense().encode(sae, x[:_PROBE]))
        if not self.is_sparse:
            return Dense()
        too_many = self.screened is None and self.density > _SCREEN_LIMIT
        room = round(_ROOM * self.density * len(x) * sae.d_sae) + sae.d_sae
        return Sparse(kernels_for(x.device, False if too_many else self.screened, room))

    @torch.no_grad()
    def observe(self, sae: ThresholdSAE, code: Code) -> None:
        """Takes a step's code into the running mean and decides on the next step."""
        if code.entries is None:
            rows = code.z[::_ROWS]
            found = torch.count_nonzero(rows > sae.threshold - sae.bandwidth / 2) / rows.numel()
        else:
            found = torch.tensor(len(code.z) / (code.batch * sae.d_sae), device=code.z.device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
            found /= dist.get_world_size()
        self.density = float(found) if math.isnan(self.density) else 0.9 * self.density + 0.1 * float(found)
        sparse = self.density < (self.leave if self.is_sparse else self.enter)
        if sparse != self.is_sparse:
            _log.info("The step is %s from now on (density %.2g).", "sparse" if sparse else "dense", self.density)
        self.is_sparse = sparse

    def get_extra_state(self) -> dict[str, Any]:
        return {"density": self.density, "is_sparse": self.is_sparse}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.density, self.is_sparse = float(state["density"]), bool(state["is_sparse"])
