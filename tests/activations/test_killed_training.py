"""A training killed at any step goes on with the same batches in the same order, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT, STEPS = Path(__file__).parents[2], 60


@pytest.mark.parametrize("mode", ["cached", "online"])
def test_five_kills_change_no_bit(families: dict[str, Path], tmp_path: Path, mode: str) -> None:
    words = torch.randint(0, 60, (60, 40), generator=torch.Generator().manual_seed(0)).tolist()
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(f"w{i}" for i in line) for line in words))
    arguments = (families["llama"], tmp_path / "text.txt", tmp_path / "cache", tmp_path, mode)
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "kill_training.py", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    killed_at = [int(word) for word in done.stdout.split()]
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
