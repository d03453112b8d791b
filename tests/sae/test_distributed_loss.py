"""The target-L0 penalty on two real processes is that of one process on the whole batch."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from atomlab.groups import Groups
from atomlab.sae.losses import target_l0_penalty
from atomlab.sae.shard import Shard
from atomlab.sae.sparse_code import Code


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Pre-activations whose even rows fire about twice as often as the odd ones, and thresholds that differ."""
    z = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[::2] += 0.7
    return z, torch.linspace(0.1, 0.6, 6, dtype=torch.float64).requires_grad_()


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    z, theta = problem()
    shard = Shard(6, Groups.of_ranks(rank, 2))
    penalty = target_l0_penalty(Code(z[rank::2], z[rank::2], None, 6), theta, 0.5, 2.0, shard)
    penalty.backward()
    assert theta.grad is not None
    dist.all_reduce(theta.grad)
    average = theta.grad / 2  # as DDP takes it
    torch.save((penalty.detach(), average), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_value_and_gradient_on_two_processes(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    z, theta = problem()
    penalty = target_l0_penalty(Code(z, z, None, 12), theta, 0.5, 2.0)
    penalty.backward()
    fired = (z > theta.detach()).sum(1)
    assert fired[::2].sum() != fired[1::2].sum()
    for rank in range(2):
        value, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(value, (fired.double().mean() / 2 - 1).square())
        torch.testing.assert_close(gradient, theta.grad)
