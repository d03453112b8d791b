"""The environment variables of a job of a sweep: what Lightning and wandb take from it, and its GPU."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.conf import HydraConf

JOB = "ATOMLAB_JOB"  # environment variable of a job's process: the file that its closing sentence goes to
_DISTRIBUTED = ("LOCAL_RANK", "NODE_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_INSTALLED = ("site-packages", "dist-packages")  # where Python finds packages from any folder
_GPUS = "CUDA_VISIBLE_DEVICES"


def gpu_of_job(number: int, gpus: Sequence[str]) -> Mapping[str, str]:
    """Chooses the GPU of a job among several that run at once.

    Args:
        number: of the job.
        gpus: those that this machine has, as CUDA_VISIBLE_DEVICES names them.

    Returns:
        The environment variable that leaves the job one GPU, by its number in turn; nothing where there are fewer than two.
    """
    return {_GPUS: gpus[number % len(gpus)]} if len(gpus) > 1 else {}


def environment_of_job(hydra: HydraConf, said: Path) -> dict[str, str]:
    """Returns the environment of a job's process: this one's, without what would make it a part of a distributed run.

    Args:
        hydra: Hydra's configuration of the job or of the sweep.
        said: the file that the closing sentence of the process goes to.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DISTRIBUTED and not name.startswith("TORCHELASTIC_")
    }
    kept.setdefault("WANDB_RUN_GROUP", Path(hydra.sweep.dir).name)
    if str(hydra.launcher.get("_target_", "")).endswith("JoblibLauncher"):  # several jobs at once on this machine
        kept |= gpu_of_job(int(hydra.job.num), _visible_gpus())
    return kept | {JOB: str(said), "PYTHONPATH": python_path()}


def python_path() -> str:
    """Returns PYTHONPATH with the folder of a checkout, in which Python finds atomlab from any folder; as it is if installed."""
    found = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    package = Path(__file__).parents[2]
    if package.name not in _INSTALLED and str(package) not in found:
        found.append(str(package))
    return os.pathsep.join(found)


def _visible_gpus() -> list[str]:
    if named := os.environ.get(_GPUS):
        return named.split(",")
    import torch  # seconds, which only a sweep of several jobs at once needs

    return [str(number) for number in range(torch.cuda.device_count())]
