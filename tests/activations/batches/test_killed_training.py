"""A training killed at any step goes on with the same batches in the same order, bit for bit."""

from pathlib import Path

import pytest

from atomlab.activations.corpora.local import LocalText
from tests.activations.conftest import in_own_process

STEPS = 60


@pytest.mark.parametrize("mode", ["cached", "online"])
def test_five_kills_change_no_bit(families: dict[str, Path], text: LocalText, tmp_path: Path, mode: str) -> None:
    arguments = (families["llama"], text.path, tmp_path / "cache", tmp_path, mode)
    said = in_own_process("kill_training.py", *arguments)
    killed_at = [int(word) for word in said.split()]
    assert len(killed_at) == 5
    assert len({step for step in killed_at if 0 < step < STEPS - 1}) >= 4  # kills fell into the middle
    whole, killed = (
        [line.split() for line in (tmp_path / name / "batches").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    expected = dict(whole)
    assert list(expected) == [str(step) for step in range(STEPS)]
    assert len(set(expected.values())) == STEPS  # no two batches are the same
    assert len(killed) >= STEPS
    assert all(expected[step] == digest for step, digest in killed)
    assert {step for step, _ in killed} == set(expected)
    assert (tmp_path / "whole" / "weights").read_bytes() == (tmp_path / "killed" / "weights").read_bytes()
