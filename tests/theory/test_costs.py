"""Every public function of the theory, and every metric, says what it costs in time and in memory."""

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
