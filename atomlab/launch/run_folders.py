"""Reserves the folder of a run or a sweep, so that nothing is written over and no two runs share a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from atomlab.launch.ranks import is_first_process

_MAY_DIFFER = ("cache_dir", "trainer", "model.device")  # options that no number of a study depends on
NO_CONFIGURATION = "hydra.output_subdir=null"


class FolderRefused(BaseException):
    """A folder cannot be used. This is no Exception, since Hydra turns the exceptions of a callback into warnings."""


@final
class ClaimFolder(Callback):
    """Reserves the folder of a run or a sweep before Hydra writes into it. Of several runs at once only one succeeds.

    A run reserves its folder by making `.hydra` in it, and a sweep by making `multirun.yaml`. A job of a sweep is a run of
    its own; the process of the sweep leaves nothing in the job's folder but an empty log.

    Args:
        goes_on: whether a folder with the same configuration may be given again, to continue a long study in it.
    """

    def __init__(self, goes_on: bool = False) -> None:
        self.goes_on = goes_on
        self.lock: FileLock | None = None  # held until the run ends

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_refuse(self._claim_run, config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_refuse(self._claim_sweep, config)

    def _claim_run(self, config: DictConfig) -> None:
        if not is_first_process():  # a further process has a temporary folder
            return
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.run.dir))
        _make(folder, "hydra.run.dir")
        mark = folder / ".hydra"
        try:
            mark.mkdir()
        except FileExistsError:
            if not self.goes_on:
                raise _not_empty(folder, "hydra.run.dir") from None
            _compare(folder, config)
        else:
            if not _is_empty(folder, besides={mark.name}, log=f"{config.hydra.job.name}.log"):
                mark.rmdir()
                raise _not_empty(folder, "hydra.run.dir")
        if self.goes_on:
            self._hold(folder)

    def _claim_sweep(self, config: DictConfig) -> None:
        if not is_first_process():
            raise FolderRefused(
                "A sweep is started by one process: leave out srun or torchrun before the command with -m."
            )
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.sweep.dir))
        _make(folder, "hydra.sweep.dir")
        mark = folder / "multirun.yaml"
        try:
            with mark.open("x", encoding="utf-8") as stream:
                OmegaConf.save(config, stream)
        except FileExistsError:
            raise _not_empty(folder, "hydra.sweep.dir") from None
        if not _is_empty(folder, besides={mark.name}):
            mark.unlink()
            raise _not_empty(folder, "hydra.sweep.dir")
        words = config.hydra.overrides.hydra
        with read_write(words):
            words.append(NO_CONFIGURATION)  # each job writes its own configuration

    def _hold(self, folder: Path) -> None:
        self.lock = FileLock(folder / ".hydra" / "lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise FolderRefused(
                f"hydra.run.dir={folder} is in use by another run: wait for it, or give another folder."
            ) from None


def _or_refuse(claim: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Reserves the folder, and refuses the run after any error on the way."""
    try:
        claim(config)
    except Exception as error:
        raise FolderRefused(f"The folder could not be reserved: {type(error).__name__}: {error}") from error


def _make(folder: Path, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderRefused(
            f"{key}={folder} could not be made ({error}): give a folder that can be written."
        ) from error


def _is_empty(folder: Path, besides: set[str], log: str = "") -> bool:
    return all(entry.name in besides or (entry.name == log and entry.stat().st_size == 0) for entry in folder.iterdir())


def _not_empty(folder: Path, key: str) -> FolderRefused:
    last = folder / "checkpoints" / "last.ckpt"
    on = f" (what was trained in it goes on with resume={last}, in a new folder)" if last.exists() else ""
    return FolderRefused(f"{key}={folder} exists and is not empty, and nothing is written over: give a new folder{on}.")


def _compare(folder: Path, config: DictConfig) -> None:
    """Refuses a folder whose configuration differs, and names both values of the first key that does."""
    file = folder / ".hydra" / "config.yaml"
    if not file.exists():
        raise _not_empty(folder, "hydra.run.dir")
    old = _flat(OmegaConf.to_container(OmegaConf.load(file)))
    new = _flat({key: value for key, value in _plain(config).items() if key != "hydra"})
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not f"{key}.".startswith(tuple(f"{may}." for may in _MAY_DIFFER)):
            raise FolderRefused(
                f"hydra.run.dir={folder} holds a run with {key}={old.get(key, 'nothing')}, and now it is "
                f"{new.get(key, 'nothing')}: give the same value to go on, or another folder."
            )


def _plain(config: DictConfig) -> dict[Any, Any]:
    found = OmegaConf.to_container(config)
    assert isinstance(found, dict)
    return found


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by their dotted keys."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{path}.{key}" if path else str(key))
    return flat
