"""Reserves the folder of a run or a sweep, so that nothing is written over and no two runs share a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from atomlab.files import UNFINISHED, atomic_write
from atomlab.launch.bank import run_gathered
from atomlab.launch.ranks import is_first_process
from atomlab.launch.sweep_folder import content_of_sweep, failures, quoted

_MAY_DIFFER = ("cache_dir", "trainer", "model.device", "resume")  # options that no number depends on
_OWN = "auto"  # resume=auto: go on in this folder
NO_CONFIGURATION = "hydra.output_subdir=null"
_SWEEP = "multirun.yaml"


class FolderRefused(BaseException):
    """A folder cannot be used. This is no Exception, since Hydra turns the exceptions of a callback into warnings."""


class SweepEnded(BaseException):
    """All jobs of a sweep have ended. This is no Exception, since Hydra turns the exceptions of a callback into warnings.

    Args:
        folder: of the sweep.
        sentence: names the failed jobs with their errors; empty where none failed.
        code: the exit code of the sweep.
    """

    def __init__(self, folder: Path, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.folder, self.sentence, self.code = folder, sentence, code


@final
class ClaimFolder(Callback):
    """Reserves the folder of a run or a sweep before Hydra writes into it. Of several runs at once only one succeeds.

    A run reserves its folder by making `.hydra` in it, and a sweep by making `multirun.yaml`. A job of a sweep is a run of
    its own; the process of the sweep leaves nothing in the job's folder but an empty log. The folder of a sweep may always
    be given again with the same configuration: finished jobs are skipped then. At its end `SweepEnded` is raised, whichever
    launcher ran the jobs.

    A run with `resume=auto` may be given a folder of the same configuration too, since it goes on from what is in it.

    Args:
        goes_on: whether a run's folder with the same configuration may be given again, to continue a long study in it.
    """

    def __init__(self, goes_on: bool = False) -> None:
        self.goes_on = goes_on
        self.lock: FileLock | None = None  # held until the run ends

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the lock, which this process alone holds: launchers send callbacks to other processes."""
        return {"goes_on": self.goes_on, "lock": None}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_refuse(self._claim_run, config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _or_refuse(self._claim_sweep, config)

    def _claim_run(self, config: DictConfig) -> None:
        if not is_first_process():  # a further process has a temporary folder
            return
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.run.dir))
        goes_on = self.goes_on or config.get("resume") == _OWN
        _make(folder, "hydra.run.dir")
        mark = folder / ".hydra"
        try:
            mark.mkdir()
        except FileExistsError:
            if not goes_on:
                raise _not_empty(folder, "hydra.run.dir") from None
            if not _is_empty(folder, besides={mark.name}, log=f"{config.hydra.job.name}.log"):
                _compare(folder, config)
        else:
            if not _is_empty(folder, besides={mark.name}, log=f"{config.hydra.job.name}.log"):
                mark.rmdir()
                raise _not_empty(folder, "hydra.run.dir")
        if goes_on:
            self._hold(folder, folder / ".hydra" / "lock", "hydra.run.dir")

    def _claim_sweep(self, config: DictConfig) -> None:
        if not is_first_process():
            raise FolderRefused(
                "A sweep is started by one process: leave out srun or torchrun before the command with -m."
            )
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.sweep.dir))
        _make(folder, "hydra.sweep.dir")
        mark = folder / _SWEEP
        foreign = [
            entry for entry in folder.iterdir() if entry.name != "lock" and not entry.name.startswith(UNFINISHED)
        ]
        if foreign and not mark.exists():
            raise _not_empty(folder, "hydra.sweep.dir")
        self._hold(folder, folder / "lock", "hydra.sweep.dir")
        if mark.exists():
            _compare_sweeps(folder, config)
        else:
            with atomic_write(mark) as temporary:
                OmegaConf.save(config, temporary)
        words = config.hydra.overrides.hydra
        with read_write(words):
            words.append(NO_CONFIGURATION)  # each job writes its own configuration

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(str(config.hydra.sweep.dir))
        run_gathered(folder, config.hydra)
        raise SweepEnded(folder, *failures(folder))

    def _hold(self, folder: Path, lock: Path, key: str) -> None:
        self.lock = FileLock(lock)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise FolderRefused(
                f"{key}={folder} is in use by another process: wait for it, or give another folder."
            ) from None


def resumed_sweep(words: list[str]) -> list[str]:
    """Replaces `resume_sweep=<folder>` by the command line that the sweep in the folder was started with.

    Args:
        words: of the command line, without the script.

    Returns:
        The words with which the sweep goes on; `words` itself if none of them is `resume_sweep=`.

    Raises:
        ValueError: other words beside it, or the folder holds no sweep.
    """
    named = [word for word in words if word.startswith("resume_sweep=")]
    if not named:
        return words
    folder = Path(named[0].partition("=")[2].strip("'\""))
    if beside := [word for word in words if word not in (named[0], "-m", "--multirun")]:
        raise ValueError(
            f"resume_sweep={folder} takes the whole command line of that sweep: leave out {' '.join(beside)}."
        )
    file = folder / _SWEEP
    if not file.is_file():
        raise FileNotFoundError(
            f"resume_sweep={folder} is no folder of a sweep: it has no {_SWEEP}. Give the folder that train.py -m made."
        )
    hydra = OmegaConf.load(file).hydra
    more = [
        f"--config-dir={source.path}" for source in hydra.runtime.config_sources if source.provider == "command-line"
    ]
    own = [word for word in hydra.overrides.hydra if not word.startswith(("hydra.sweep.dir=", "hydra.mode="))]
    return ["-m", *more, *hydra.overrides.task, *own, f"hydra.sweep.dir={quoted(folder)}"]


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
    """Refuses a run's folder whose configuration differs, and names both values of the first key that does."""
    file = folder / ".hydra" / "config.yaml"
    if not file.exists():
        raise _not_empty(folder, "hydra.run.dir")
    old = _flat(OmegaConf.to_container(OmegaConf.load(file)))
    _refuse_difference(old, _flat(_without_hydra(config)), f"hydra.run.dir={folder} holds a run")


def _compare_sweeps(folder: Path, config: DictConfig) -> None:
    """Refuses a sweep's folder whose configuration, or whose words, differ."""
    then = OmegaConf.load(folder / _SWEEP)
    assert isinstance(then, DictConfig)
    old, new = (_flat({**_without_hydra(one), "the sweep": _said(one)}) for one in (then, config))
    _refuse_difference(old, new, f"hydra.sweep.dir={folder} holds a sweep")


def _said(config: DictConfig) -> str:
    return " ".join(content_of_sweep(config.hydra.overrides.task, config.hydra.sweeper.get("params")))


def _refuse_difference(old: dict[str, Any], new: dict[str, Any], what: str) -> None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not f"{key}.".startswith(tuple(f"{may}." for may in _MAY_DIFFER)):
            raise FolderRefused(
                f"{what} with {key}={old.get(key, 'nothing')}, and now it is {new.get(key, 'nothing')}: give the same value "
                "to go on, or another folder."
            )


def _without_hydra(config: DictConfig) -> dict[str, Any]:
    return {str(key): value for key, value in _plain(config).items() if key != "hydra"}


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
