"""For the site: each notebook of docs/ becomes a page, with the outputs that stand in it; nothing is executed."""

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds `<name>.md` for each `<name>.ipynb`, which stays as a file to download."""
    for notebook in sorted(Path(config.docs_dir).glob("*.ipynb")):
        files.append(File.generated(config, f"{notebook.stem}.md", content=page(notebook)))
    return files


def page(notebook: Path) -> str:
    """Writes the cells of a notebook as Markdown."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    download = f"*This page is a notebook: [{notebook.name}]({notebook.name}).*"
    return "\n\n".join([*map(_cell, cells), download]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = "".join("".join(output.get("text", "")) for output in cell["outputs"]).rstrip("\n")
    return f"~~~python\n{source}\n~~~" + (f"\n\n~~~text\n{printed}\n~~~" if printed else "")
