"""The strategy of `trainer=latent_parallel`: processes share one dictionary, and may have replicas that see other data."""

from datetime import timedelta
from pathlib import Path
from typing import Any, final

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from atomlab.groups import Groups
from atomlab.interop.checkpoint import read_checkpoint
from atomlab.interop.sharded_checkpoint import remove_unused, save_sharded
from atomlab.ranges import Count
from atomlab.training.module import SAEModule


@final
class LatentParallelStrategy(DDPStrategy):
    """Trains one TSAE whose latents are shared by N processes; further processes are replicas for other data.

    Each process has an ordinary `ThresholdSAE` of its own latents, with optimiser state for these alone. A step exchanges the
    partial reconstructions, shape `(batch, d_in)`, and a few numbers among the N processes; gradients are averaged over the
    replicas only, by DDP. It is a class of Lightning's because this is how Lightning is told how processes communicate.

    Checkpoints are folders of safetensors, one file a process, which any number of processes can go on from.

    Args:
        latents: N; the number of processes of the run is a multiple of it.
        timeout: of a wait for another process.
        process_group_backend: `gloo` or `nccl`; None chooses by the device.
        start_method: how Lightning starts further processes on this machine.

    Raises:
        ValueError: N does not divide the number of processes.
    """

    def __init__(
        self,
        latents: Count = 2,
        timeout: timedelta = timedelta(days=2),
        process_group_backend: str | None = None,
        start_method: Any = "popen",
    ) -> None:
        super().__init__(timeout=timeout, process_group_backend=process_group_backend, start_method=start_method)
        self.latents = latents
        self._connected: Groups | None = None
        self._saved: Path | None = None  # where checkpoints lie

    @property
    def groups(self) -> Groups:
        """Which processes see other data, and which hold other latents; connected once the processes are."""
        if self._connected is not None:
            return self._connected
        return Groups.of_ranks(self.global_rank, self.num_nodes * self.num_processes, self.latents)

    def setup_environment(self) -> None:
        super().setup_environment()
        if self._connected is None:
            self._connected = self.groups.connected(self.root_device.type)

    def setup(self, trainer: Trainer) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().setup(trainer)
            return
        # DDP would give the first process's weights to all
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self.setup_precision_plugin()

    def configure_ddp(self) -> None:
        if self.groups.data.size == 1:
            return  # nobody to average with: no buckets of gradients either
        assert self.model is not None
        self.model = DistributedDataParallel(
            self.model,
            device_ids=self.determine_ddp_device_ids(),
            process_group=self.groups.data.group,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes the shards of all processes beside `filepath`, and makes `filepath` point to them."""
        beside = Path(self.broadcast(str(Path(filepath).parent.absolute())))  # further processes have other run folders
        module, self._saved = self.lightning_module, beside
        assert isinstance(module, SAEModule)
        pointer = Path(filepath) if self.is_global_zero else None
        save_sharded(checkpoint, latent_dimensions(module, self.optimizers[0]), beside, pointer, self.groups)

    def teardown(self) -> None:
        if self._saved is not None and self.is_global_zero:
            remove_unused(self._saved)  # that of before the last swap of the file that points to one
        super().teardown()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads this process's part of a checkpoint that any number of processes wrote."""
        return read_checkpoint(checkpoint_path, self.groups)


def latent_dimensions(module: SAEModule, optimizer: Optimizer) -> dict[str, int]:
    """Says which dimension of each tensor of a checkpoint is the latents, by its path in the checkpoint.

    Args:
        module: whose state the checkpoint holds.
        optimizer: of its parameters, whose running means have the shapes of these.

    Returns:
        The dimensions; tensors that are the same in all processes are left out.
    """
    of_parameters = {"sae.W_dec": 0, "sae.W_enc": 1, "sae.b_enc": 0, "sae.threshold": 0}
    found = {f"state_dict/{name}": dimension for name, dimension in [*of_parameters.items(), ("since_fired", 0)]}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    for number, name in enumerate(order):
        for mean in ("exp_avg", "exp_avg_sq"):
            if name in of_parameters:
                found[f"optimizer_states/0/state/{number}/{mean}"] = of_parameters[name]
    return found
