"""The site has a page for each notebook and for each room of the package that a user imports from."""

import json
import re

from docs.notebook_as_page import page
from tests.docs.notebooks import ROOT, code_cells
from tests.docs.test_python_of_the_documents import TUTORIAL

STARTED_ONLY = {"commands", "launch"}  # from the command line


def test_a_notebook_becomes_a_page_with_all_cells_and_what_they_print() -> None:
    text = page(TUTORIAL)
    blocks = re.findall(r"^~~~python\n(.*?)\n~~~$", text, re.M | re.S)
    assert blocks == ["".join(cell["source"]) for cell in code_cells(TUTORIAL)]
    printed = ["".join(output["text"]).rstrip("\n") for cell in code_cells(TUTORIAL) for output in cell["outputs"]]
    assert re.findall(r"^~~~text\n(.*?)\n~~~$", text, re.M | re.S) == printed
    for cell in json.loads(TUTORIAL.read_text())["cells"]:
        assert "".join(cell["source"]) in text


def test_every_room_has_its_page_of_the_reference() -> None:
    rooms = {file.parent.name for file in (ROOT / "atomlab").glob("*/__init__.py")} - STARTED_ONLY
    pages = {file.stem for file in (ROOT / "docs" / "api").glob("*.md")} - {"index"}
    assert pages == rooms
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(f"- api/{room}.md\n" in navigation for room in rooms)
