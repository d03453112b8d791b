"""The target-L0 gradient on two real processes equals that of one process on the whole batch."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from atomlab.sae.losses import target_l0_penalty
from atomlab.sae.sparse_code import Code


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z, torch.full((6,), 0.3, dtype=torch.float64, requires_grad=True)


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    z, theta = problem()
    target_l0_penalty(Code(z[rank::2], z[rank::2], None, 6), theta, 0.5, 2.0).backward()
    assert theta.grad is not None
    dist.all_reduce(theta.grad)
    if rank == 0:
        torch.save(theta.grad / 2, Path(folder) / "gradient.pt")  # the average, as DDP takes it
    dist.destroy_process_group()


def test_gradient_on_two_processes(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    z, theta = problem()
    target_l0_penalty(Code(z, z, None, 12), theta, 0.5, 2.0).backward()
    torch.testing.assert_close(torch.load(tmp_path / "gradient.pt", weights_only=True), theta.grad)
