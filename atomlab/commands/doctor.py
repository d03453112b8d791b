"""`atomlab doctor`: looks at this machine, and says for each thing that is not as it could be what to do."""

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atomlab.commands.examinations import EXAMINATIONS, Finding

_MARKS = {"fine": ("ok", "green"), "note": ("note", "yellow"), "fault": ("fault", "bold red")}


def main(words: list[str]) -> int:
    """Prints what was found.

    Args:
        words: of the command line; there are none but `--help`.

    Returns:
        The exit code: 1 where something would keep atomlab from running, else 0.
    """
    argparse.ArgumentParser(
        prog="atomlab doctor",
        description="Looks at versions, devices, precision, cache and network, and says what to do. It changes nothing, and "
        "works without a network.",
    ).parse_args(words)
    console = Console(highlight=False)
    found: list[Finding] = []
    for title, examine in EXAMINATIONS.items():
        mine = list(examine())
        found += mine
        console.print(Text(title, "bold"))
        console.print(_table(mine))
    faults = sum(finding.state == "fault" for finding in found)
    console.print("Nothing keeps atomlab from running." if not faults else f"{faults} faults, each with its remedy.")
    return 1 if faults else 0


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for width in (5, 15, None):
        table.add_column(width=width, overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.state]
        said = Text(finding.found) if not finding.advice else Text(f"{finding.found}\n→ {finding.advice}")
        table.add_row(Text(mark, style), Text(finding.subject), said)
    return table
