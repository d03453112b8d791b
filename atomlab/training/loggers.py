"""Makes loggers that work without an account."""

import os
import sys
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger


def wandb_logger(
    save_dir: str, project: str = "atomlab", name: str | None = None, group: str | None = None
) -> WandbLogger:
    """Makes a wandb logger that works offline, with one line of notice, where there is no key.

    `wandb sync` uploads such a run later.

    Args:
        save_dir: the folder of the run, for wandb's files.
        project: of the run.
        name: of the run. None: the last two parts of its folder, such as the time of a sweep and the number of a job.
        group: of the run. None: the environment variable WANDB_RUN_GROUP, which a sweep sets for its jobs.

    Returns:
        The logger. The environment variables WANDB_SILENT, and WANDB_MODE where there is no key, are set.

    Raises:
        OSError: `save_dir` cannot be written.
    """
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")
    if not (os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY") or _netrc_has_key()):
        os.environ["WANDB_MODE"] = "offline"
        sys.stderr.write(f"wandb: no key found, logging offline to {save_dir} (upload later with `wandb sync`).\n")
    name = name or "/".join(Path(save_dir).resolve().parts[-2:])
    return WandbLogger(project=project, name=name, save_dir=save_dir, group=group or os.environ.get("WANDB_RUN_GROUP"))


def _netrc_has_key() -> bool:
    files = [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(file.exists() and "api.wandb.ai" in file.read_text(encoding="utf-8") for file in files)
