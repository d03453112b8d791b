"""Makes loggers that work without an account, and what they show beside single numbers."""

import errno
import itertools
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from atomlab.files import atomic_write

AXIS = "data/vectors"
_RUN_ID = "wandb_run.txt"  # in the folder of a run: the id that a resumed run takes over, and the project
_BEST = {"validation/r2_s": "max", "validation/r2": "max"}
_TAG_LENGTH = 64  # that wandb allows
_BINS = 64
_ROOM = 1 << 20  # bytes that have to be free on the disk of wandb's files
_REPORTS = ("artifact", "panel")


@final
@dataclass(frozen=True)
class SentFiles:
    """What of a run's folder goes to wandb at its end.

    Attributes:
        report: `artifact` sends report.html, its figures and tables as an artifact; `panel` shows report.html in the run; None
            sends nothing.
        checkpoints: whether `sae/` and the last checkpoint are an artifact.

    Raises:
        ValueError: another word for `report`.
    """

    report: str | None = None
    checkpoints: bool = False

    def __post_init__(self) -> None:
        if self.report not in (None, *_REPORTS):
            raise ValueError(f"logger.logger.files.report={self.report} should be null, {' or '.join(_REPORTS)}.")


@final
class WandbRun(WandbLogger):
    """A wandb run whose charts have the number of training vectors as their axis.

    Runs of different batch sizes can so be compared; `trainer/global_step` is there as well. The summary keeps the best
    `validation/r2_s` and `validation/r2`.

    Args:
        run_id: of the wandb run. It is kept in the folder of the run once that begins, for a run that goes on from it.
        files: what of the run's folder is sent at its end.
        options: of `WandbLogger`.
    """

    def __init__(self, run_id: str, files: "SentFiles", **options: Any) -> None:
        super().__init__(id=run_id, **options)
        self.run_id, self.files, self.vectors_a_step = run_id, files, 1
        self.ended = False

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Sends the configuration of the run, from which the vectors of a step are known, and defines the charts' axis.

        Args:
            params: the configuration of train.py, with `batch_size` and `trainer.accumulate_grad_batches`.
            args, kwargs: of `WandbLogger.log_hyperparams`.
        """
        self._begin()
        super().log_hyperparams(params, *args, **kwargs)
        self.vectors_a_step = params["batch_size"] * (params["trainer"].get("accumulate_grad_batches") or 1)
        self.experiment.define_metric(AXIS, hidden=True)
        self.experiment.define_metric("*", step_metric=AXIS, step_sync=True)
        for name, best in _BEST.items():
            self.experiment.define_metric(name, step_metric=AXIS, step_sync=True, summary=best)
        self._keep_id()

    @rank_zero_only
    def _begin(self) -> None:
        """Begins the wandb run; offline, with one line of notice, if the server does not answer."""
        from wandb.errors import CommError  # here, since it takes a second that no other run should wait for

        try:
            _ = self.experiment
        except (CommError, TimeoutError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            sys.stderr.write(
                f"wandb: the server cannot be reached ({reason}), logging offline to {self.save_dir} (upload later with `wandb "
                "sync`).\n"
            )
            self.run_id = secrets.token_hex(4)  # wandb keeps the id of the attempt in use
            self._wandb_init.update(mode="offline", id=self.run_id)

    @rank_zero_only
    def _keep_id(self) -> None:
        with atomic_write(Path(str(self.save_dir)) / _RUN_ID) as temporary:
            temporary.write_text(f"{self.run_id}\n{self._project}\n", encoding="utf-8")

    @rank_zero_only
    def _refuse_full_disk(self) -> None:
        """wandb writes in a process of its own, which loses on a full disk what it is given, and says nothing."""
        folder = Path(str(self.save_dir))
        if shutil.disk_usage(folder).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "wandb"))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Sends numbers, with the number of vectors that have been trained on.

        Args:
            metrics: numbers by name.
            step: of the optimiser, from 0 as Lightning counts it, so that one more has seen its vectors; None for numbers that
                belong to no step, such as those of the closing table.

        Raises:
            OSError: the disk of wandb's files is full.
        """
        self._refuse_full_disk()
        super().log_metrics(
            dict(metrics) if step is None else {**metrics, AXIS: (step + 1) * self.vectors_a_step}, step
        )

    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Sends histograms of 64 bins, counted here, so that no more than the counts is stored.

        Args:
            values: numbers of any shape, by name; those that are not finite are left out.
            step: number of finished steps of the optimiser.
        """
        import wandb  # here, since it takes a second that no other run should wait for

        found: dict[str, Any] = {"trainer/global_step": step, AXIS: step * self.vectors_a_step}
        for name, numbers in values.items():
            flat = numbers.detach().cpu().double().flatten().numpy()
            counted = np.histogram(flat[np.isfinite(flat)], bins=_BINS)
            found[name] = wandb.Histogram(np_histogram=counted)
        self.experiment.log(found)

    def log_rows(self, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Sends a table: one line a row, one column a number or a word that some row has.

        Args:
            key: its name.
            rows: of the closing table. Values that are neither numbers nor words, such as intervals, are left out.
        """
        plain = [{name: value for name, value in row.items() if isinstance(value, int | float | str)} for row in rows]
        columns = list(dict.fromkeys(name for row in plain for name in row))
        self.log_table(key, columns=columns, data=[[row.get(name) for name in columns] for row in plain])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the run as failed where a training failed; after a success the closing table is still to come (`end`).

        Args:
            status: `success` or `failed`, as Lightning says it.
        """
        super().finalize(status)
        if status == "failed":
            self.end(1)

    @rank_zero_only
    def log_folder(self, folder: Path) -> None:
        """Sends what `files` names.

        Args:
            folder: of the run, with its report, its SAE and its checkpoints.
        """
        import wandb

        report = folder / "report.html"
        if self.files.report == "panel":
            self.experiment.log({"report": wandb.Html(report.read_text(encoding="utf-8"), inject=False)})
        if self.files.report == "artifact":
            found = [report, *sorted(folder.glob("results.*")), *sorted((folder / "figures").glob("*.png"))]
            self._send("report", found, folder)
        if self.files.checkpoints:
            found = [folder / "checkpoints" / "last.ckpt", *sorted((folder / "sae").iterdir())]
            self._send("model", found, folder)

    def _send(self, kind: str, found: Sequence[Path], folder: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self.run_id}", type=kind)
        for file in found:
            if file.is_file():
                artifact.add_file(str(file), name=file.relative_to(folder).as_posix())
        self.experiment.log_artifact(artifact)

    @rank_zero_only
    def end(self, exit_code: int = 0) -> None:
        """Ends the wandb run, if it began and has not ended, so that none stays unfinished when others go on in this process.

        Args:
            exit_code: 0 for a run that is finished.
        """
        if self._experiment is not None and not self.ended:
            self.ended = True
            self._experiment.finish(exit_code=exit_code)


def wandb_logger(
    save_dir: str,
    project: str = "atomlab",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    resume: str | None = None,
    files: SentFiles = SentFiles(),
) -> WandbRun:
    """Makes a wandb logger that works offline, with one line of notice, where there is no key.

    `wandb sync` uploads such a run later.

    Args:
        save_dir: the folder of the run, for wandb's files.
        project: of the run.
        name: of the run. None: the last two parts of its folder, such as the name of a sweep and the number of a job.
        group: of the run. None: the environment variable WANDB_RUN_GROUP, which a sweep sets for its jobs.
        tags: of the run, such as the words of its command line; cut to the 64 characters that wandb allows.
        resume: a checkpoint of an earlier run, whose wandb run is continued, or None.
        files: what of the run's folder is sent at its end.

    Returns:
        The logger. The environment variables WANDB_SILENT, and WANDB_MODE where there is no key, are set.

    Raises:
        OSError: `save_dir` cannot be written.
    """
    offline_without_key(save_dir)
    return WandbRun(
        project=project,
        name=name or "/".join(Path(save_dir).resolve().parts[-2:]),
        save_dir=save_dir,
        group=group or os.environ.get("WANDB_RUN_GROUP"),
        tags=_tags(tags),
        run_id=_run_id(resume),
        files=files,
        reinit="create_new",  # several runs in one process, as in a bank, are several runs in wandb
    )


def csv_logger(save_dir: str) -> CSVLogger:
    """Makes a logger that writes `csv/metrics.csv` into the folder of the run.

    Lightning would delete a file that is there already, which is that of a run with resume=auto. Its folder becomes
    `csv-1`, or the next number that is free.

    Args:
        save_dir: the folder of the run.

    Returns:
        The logger.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(save_dir) / "csv"
    if folder.exists():
        number = next(n for n in itertools.count(1) if not folder.with_name(f"csv-{n}").exists())
        folder.rename(folder.with_name(f"csv-{number}"))
    return CSVLogger(save_dir, name="csv", version="")


def offline_without_key(save_dir: str) -> None:
    """Makes wandb write to disk, with one line of notice, where there is no key.

    Args:
        save_dir: a folder for wandb's files; it is made if it does not exist.

    Raises:
        OSError: `save_dir` cannot be written.
    """
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")
    if not (os.environ.get("WANDB_MODE") or has_key()):
        os.environ["WANDB_MODE"] = "offline"
        sys.stderr.write(f"wandb: no key found, logging offline to {save_dir} (upload later with `wandb sync`).\n")


def has_key() -> bool:
    """Says whether this machine has a key of wandb, in WANDB_API_KEY or in a netrc file."""
    return bool(os.environ.get("WANDB_API_KEY")) or _netrc_has_key()


def project_of_run(run: Path) -> str | None:
    """Returns the wandb project that a run logged to.

    Args:
        run: its folder.

    Returns:
        The project; None if the run did not use wandb.
    """
    return [*_kept(run), "", ""][1] or None


def _kept(run: Path) -> list[str]:
    """What a run keeps of its wandb run: id and project; nothing where it has none."""
    file = run / _RUN_ID
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _run_id(resume: str | None) -> str:
    """Returns the id of the wandb run that is continued, or a new one."""
    found = "" if resume is None else (_kept(Path(resume).parent.parent) or [""])[0].strip()
    return found if found.isalnum() else secrets.token_hex(4)


def _tags(words: Iterable[str]) -> list[str]:
    """Cuts words to tags that wandb takes, each once."""
    return list(dict.fromkeys(str(word)[:_TAG_LENGTH] for word in words if word))


def _netrc_has_key() -> bool:
    files = [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(file.exists() and "api.wandb.ai" in file.read_text(encoding="utf-8") for file in files)
