"""For the reference: the examples of a docstring, which stand in it without a title, become its section of examples."""

from typing import Any

import griffe


class DoctestsAsExamples(griffe.Extension):
    """Puts a title above each paragraph that begins with `>>>`, so that it is shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of one object, before it is read."""
        if obj.docstring is None or ">>> " not in obj.docstring.value:
            return
        paragraphs = obj.docstring.value.split("\n\n")
        obj.docstring.value = "\n\n".join(map(_titled, paragraphs))


def _titled(paragraph: str) -> str:
    if not paragraph.startswith(">>> "):
        return paragraph
    return "\n".join(["Examples:", *(f"    {line}" for line in paragraph.split("\n"))])
