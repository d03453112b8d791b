"""A corpus with bad records on the command line: left out and counted in the report, or refused in one sentence."""

import json
from pathlib import Path

from tests.processes import one_sentence, run
from tests.tiny import OPTIONS


def corpus(tiny: Path, folder: Path) -> Path:
    """The tiny text as 400 records, of which the 7th has no text and the 300th no end."""
    texts = (tiny / "text.txt").read_text().split("\n\n")
    lines = [json.dumps({"text": text}) for text in texts]
    lines[6], lines[299] = '{"text": null}', lines[299][:20]
    (folder / "facts.jsonl").write_text("\n".join(lines))
    return folder / "facts.jsonl"


def words(tiny: Path, folder: Path) -> list[str]:
    """Of train.py in a folder of its own, on the session's model and cache."""
    for name in ("model", "text.txt"):
        (folder / name).symlink_to(tiny / name)
    return [*OPTIONS, f"corpus.path={corpus(tiny, folder).name}"]


def test_bad_records_are_counted_in_results_and_report(tiny: Path, tmp_path: Path) -> None:
    """faults.md B3, issue 11 Build 4: the count is in the report, with file and record."""
    options = words(tiny, tmp_path)
    finished = run("train.py", *options, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, cache=tiny / "cache")
    assert finished.returncode == 0, finished.stderr
    said = json.loads((tmp_path / "run" / "results.json").read_text())["provenance"]["bad records"]
    assert said == (
        "2 of 400 left out (first: facts.jsonl, line 7: its field 'text' is null, and neither text nor token ids); for S: "
        "none left out"
    )
    assert "2 of 400 left out (first: facts.jsonl, line 7" in (tmp_path / "run" / "report.html").read_text()


def test_more_bad_records_than_allowed_are_refused(tiny: Path, tmp_path: Path) -> None:
    """Also where a harvest with more of them is in the cache."""
    options = [*words(tiny, tmp_path), "corpus.max_bad_share=0.004"]
    said = one_sentence(run("train.py", *options, cwd=tmp_path, cache=tiny / "cache"))
    assert "2 of 400 records of corpus.path=facts.jsonl cannot be used, 0.50% and more" in said
    assert "facts.jsonl, line 7: its field 'text' is null" in said
    assert not list(tmp_path.glob("*/**/checkpoints"))
