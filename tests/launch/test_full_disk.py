"""A run whose disk gets full while it trains ends in one sentence, and goes on from its last checkpoint (real processes)."""

from pathlib import Path

import pytest

from atomlab.interop.checkpoint import read_checkpoint
from tests.processes import Started, one_sentence, run
from tests.small_disk import fill, needs_root, small_disk
from tests.tiny import OPTIONS

TRAIN = (*OPTIONS, "steps=1000", "trainer.log_every_n_steps=1", "callbacks.last.every=20", "hydra.run.dir=disk/run")
WEIGHTS = Path("sae") / "sae_weights.safetensors"


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of an undisturbed run."""
    place = linked(tiny, tmp_path_factory.mktemp("whole"))
    finished = run("train.py", *TRAIN, "logger=none", cwd=place, cache=tiny / "cache")
    assert finished.returncode == 0, finished.stderr
    return (place / "disk" / "run" / WEIGHTS).read_bytes()


def linked(tiny: Path, folder: Path) -> Path:
    for part in ("model", "text.txt"):
        (folder / part).symlink_to(tiny / part)
    return folder


@needs_root
@pytest.mark.parametrize("logger", ["csv", "wandb", "none"])
def test_the_run_says_so_and_goes_on_once_there_is_room(tiny: Path, tmp_path: Path, whole: bytes, logger: str) -> None:
    """Not reported: csv ended in "[Errno 28] No space left on device" alone, wandb lost its numbers without a word, and what the
    log file could not take, and the SAE at the end, were stack traces."""
    place = linked(tiny, tmp_path)
    words, last = (*TRAIN, f"logger={logger}"), place / "disk" / "run" / "checkpoints" / "last.ckpt"
    with small_disk(place / "disk", "8m") as disk:
        started = Started("train.py", *words, cwd=place, cache=tiny / "cache")
        started.wait_for(lambda _: last.with_name("previous.ckpt").exists())
        filler = fill(disk)
        finished = started.wait()
        said = one_sentence(finished)
        assert "could not be written (No space left on device): make room on its disk, and go on with resume=" in said
        assert said.endswith("/checkpoints/last.ckpt.")
        assert "Logging error" not in finished.stderr
        assert 20 <= read_checkpoint(last)["global_step"] < 1000
        filler.unlink()
        again = run("train.py", *words, "resume=auto", cwd=place, cache=tiny / "cache")
        assert again.returncode == 0, again.stderr
        assert (disk / "run" / WEIGHTS).read_bytes() == whole
