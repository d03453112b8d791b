"""No file runs code, writes anything, fills the memory or ends in more than a sentence: 360 cases of benchmarks/fuzz_files.py."""

import re
import subprocess
import sys

from tests.processes import ROOT


def test_damaged_and_hostile_files_are_refused_in_a_sentence() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz_files", "--cases", "360", "--seed", "1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "FAULT" not in finished.stdout
    total = finished.stdout.splitlines()[-1]
    refused, same = (int(re.findall(rf"'{what}': (\d+)", total)[0]) for what in ("refused", "the same weights"))
    assert refused > 270, "the changes no longer change much"
    assert same > 0
