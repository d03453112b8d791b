"""`results.json` is the same on any number of processes, whether they share the vectors or the dictionary."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run
from tests.tiny import OPTIONS


def shared(latents: int, devices: int) -> tuple[str, ...]:
    return (
        "trainer=latent_parallel", "trainer.accelerator=cpu", f"trainer.devices={devices}",
        f"trainer.strategy.latents={latents}",
    )  # fmt: skip


WAYS = {
    "one": ("trainer=cpu",),
    "ddp": ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    "shared by 2": shared(2, 2),
    "shared by 3": shared(3, 3),  # 22, 22 and 20 of 64 latents
    "shared by 4": shared(4, 4),
    "2 x 2": shared(2, 4),
}


@pytest.fixture(scope="module")
def tables(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In float64, in which sums in another order differ by 1e-16 and no vector crosses a threshold for it."""
    found, place = {}, tmp_path_factory.mktemp("tables")
    for name, words in WAYS.items():
        options = (*OPTIONS, "logger=none", "trainer.precision=64-true", f"hydra.run.dir={place / name}")
        finished = run("train.py", *options, *words, cwd=tiny, cache=tiny / "cache")
        assert finished.returncode == 0, finished.stderr
        found[name] = json.loads((place / name / "results.json").read_text())
    return found


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {at: leaf for key, part in parts for at, leaf in leaves(part, f"{path}/{key}").items()}
    return {path: value}


@pytest.mark.parametrize("name", [name for name in WAYS if name != "one"])
def test_every_number_is_that_of_one_process(name: str, tables: dict[str, Any]) -> None:
    """The table of a shared dictionary is that of the file in `sae/`, whose weights are rounded to float32: by 2^-24 of each.
    The numbers of a table are of order 1, and none is further off than four such roundings. Words and counts are equal."""
    one, found = leaves(tables["one"]), leaves(tables[name])
    assert found.keys() == one.keys()
    numbers = {path for path, value in one.items() if type(value) is float}
    assert len(numbers) > 300
    assert found["/rows/0/d_sae"] == 64
    tolerance = 1e-12 if name == "ddp" else 4 * 2.0**-24
    for path, value in one.items():
        expected = pytest.approx(value, rel=tolerance, abs=tolerance, nan_ok=True) if path in numbers else value
        assert found[path] == expected, path
