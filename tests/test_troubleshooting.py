"""docs/troubleshooting.md quotes sentences that the code really prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = list((ROOT / "atomlab").rglob("*.py"))
ENTRIES = re.findall(
    r"^\*\*(.+?)\*\*", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
)
VALUE = "\0"  # stands for a value that the sentence has in it


def sentences() -> set[str]:
    """Every string of the code, values of f-strings left out; neighbouring literals are one string in Python's grammar."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


CODE = sentences()


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_quotes_the_code(entry: str) -> None:
    """All words between the values stand in the code, and some of them are long enough to search for."""
    words = [part.strip(" .,:;=—'\"()`") for part in re.split(r"\*[^*]+\*|\.\.\.|…", entry)]
    assert max(map(len, words)) >= 9, "an entry needs words of the sentence itself"
    for part in words:
        assert any(part in sentence for sentence in CODE), f"no sentence of the code reads: {part}"


def test_entries_are_distinct() -> None:
    assert len(ENTRIES) > 5
    assert len(set(ENTRIES)) == len(ENTRIES)
