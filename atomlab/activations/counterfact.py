"""CounterFact prompts (Meng et al. 2022), one vector a prompt."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final

from atomlab.activations.corpus import Example, Position, file_digest
from atomlab.activations.hub import load
from atomlab.activations.local_text import files, records


@final
class CounterFact:
    """CounterFact from a file or the hub, in either schema.

    Schemas: `prompt` and `subject` (the subject occurs in the prompt), or ROME's `requested_rewrite` with `{}` for the subject.

    Args:
        path: a .jsonl, .json or .parquet file, or a dataset on the hub (`NeelNanda/counterfact-tracing` has the paper's
            21,919 records).
        position: `last_subject` or `last` token. At the last token the templates leak through a split by subject: use
            split_by=template there.
        split_by: what train, validation and test must not share: `subject` or `template`.
        distinct: keep prompts with the same text up to the wanted token once, as they give the same vector.
        limit: at most this many records.

    Raises:
        FileNotFoundError, ValueError: as `LocalText`; a subject that its prompt does not contain.
    """

    packed = False

    def __init__(
        self,
        path: str,
        *,
        position: Position = "last_subject",
        split_by: Literal["subject", "template"] = "subject",
        distinct: bool = True,
        limit: int | None = None,
    ) -> None:
        if position not in ("last", "last_subject"):
            raise ValueError(
                f"corpus.position={position} is not a position of one token a prompt: choose last_subject or last."
            )
        if split_by not in ("subject", "template"):
            raise ValueError(f"corpus.split_by={split_by} is unknown: choose subject or template.")
        self.path, self.split_by, self.distinct, self.limit = path, split_by, distinct, limit
        self.position: Position = position

    @property
    def fingerprint(self) -> dict[str, Any]:
        source = file_digest(Path(self.path)) if Path(self.path).is_file() else self.path
        rules = ("position", "split_by", "distinct", "limit")
        return {"counterfact": source} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        local = Path(self.path).suffix in {".jsonl", ".json", ".parquet"}
        found = records(files(Path(self.path))[0]) if local else load(self.path, None, "train", None, streaming=True)
        seen: set[str] = set()
        for record in islice(found, self.limit):
            template, subject = _template(record)
            start = template.index("{}")
            text = template.replace("{}", subject, 1)
            prefix = text[: start + len(subject)] if self.position == "last_subject" else text
            if not (self.distinct and prefix in seen):
                seen.add(prefix)
                group = subject if self.split_by == "subject" else template
                yield Example(text, group, subject=(start, start + len(subject)))

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        return islice(self.examples(), rank, None, world_size)


def _template(record: dict[str, Any]) -> tuple[str, str]:
    rewrite = record.get("requested_rewrite")
    if rewrite is not None:
        return rewrite["prompt"], rewrite["subject"].strip()
    prompt, subject = record.get("prompt"), str(record.get("subject", "")).strip()
    if not isinstance(prompt, str) or not subject or subject not in prompt:
        raise ValueError(
            f"The CounterFact record {record.get('case_id')} has the subject {subject!r}, which its prompt {prompt!r} does "
            f"not contain."
        )
    return prompt.replace(subject, "{}", 1), subject
