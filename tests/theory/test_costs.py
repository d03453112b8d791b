"""Every public function of the theory, and every metric, says what it costs; those of the theory also say what each
argument and the result is.
"""

import importlib
import inspect
import re

import pytest

import atomlab.metrics
import atomlab.theory

PUBLIC = [
    (room.__name__, name)
    for room in (atomlab.theory, atomlab.metrics)
    for name in room.__all__
    if inspect.isfunction(getattr(room, name)) or room is atomlab.metrics
]


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_costs_are_stated(room: str, name: str) -> None:
    text = inspect.getdoc(getattr(importlib.import_module(room), name)) or ""
    assert re.search(r"Time|Cost", text), "no time"
    assert re.search(r"[Mm]emory|State", text), "no memory"


def _sections(text: str) -> dict[str, str]:
    """The indented sections of a docstring by their names."""
    return dict(re.findall(r"^(Args|Returns|Raises):\n((?:(?:    .*)?\n)+)", text + "\n", flags=re.MULTILINE))


@pytest.mark.parametrize("name", [name for room, name in PUBLIC if room == atomlab.theory.__name__])
def test_every_argument_and_the_result_are_described(name: str) -> None:
    function = getattr(atomlab.theory, name)
    sections = _sections(inspect.getdoc(function) or "")
    described = re.findall(r"^    (\w+): \S", sections.get("Args", ""), flags=re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)
    assert sections.get("Returns", "").strip()
