"""Finished parts of a long study, so that a stopped one goes on where it was."""

import hashlib
import json
from collections.abc import Callable

from atomlab.evaluation.bench import Bench
from atomlab.evaluation.table import Row
from atomlab.identity import source_digest
from atomlab.report import write_json


def kept(bench: Bench, name: str, options: object, compute: Callable[[], list[Row]]) -> list[Row]:
    """The rows of one part: from the study's folder if a run of the same code and setting finished it, else computed
    and kept.

    Parts lie in `<folder>/parts/<name>.json` beside what they depend on; a part of other source files, settings or
    options is computed again. Resume a study by giving its folder again (`hydra.run.dir=...`).

    Args:
        bench: of the study; its `setting` is all that parts depend on beside `options`.
        name: of the part, as a file name.
        options: of the study, as far as this part depends on them.
        compute: makes the rows.

    Raises:
        OSError: the folder cannot be written.
    """
    file = bench.folder / "parts" / f"{name}.json"
    key = hashlib.sha256(f"{source_digest()}\n{bench.setting}\n{options!r}".encode()).hexdigest()
    if not file.exists() or json.loads(file.read_text(encoding="utf-8"))["key"] != key:
        rows = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"key": key, "rows": rows})
    return json.loads(file.read_text(encoding="utf-8"))["rows"]  # NaN is None, whether it was computed now or before
