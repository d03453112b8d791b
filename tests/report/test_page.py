"""The page: escaped, self-contained, all or nothing; and, where there is a Chromium, opened in it.

`apt-get install chromium` (or google-chrome) is all that the browser's tests need; without it they are left out, and
those on the text remain.
"""

import base64
import hashlib
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from atomlab.report import COLUMNS
from tests.report.chromium import CHROMIUM, Browser, browser
from tests.report.pages import EVIL, ROWS, atoms, write

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


class Page(HTMLParser):
    """Tags, and the text inside each script and table cell."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"td": [], "script": []}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in self.inside:
            self.inside[self.open][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(path, 6144)
    return path


def test_every_text_is_escaped_and_nothing_comes_from_elsewhere(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == [
        "application/json",
        None,
        None,
    ]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not re.search(r"https?:", text)
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "form"} == set()
    assert all((a["src"] or "").startswith("data:image/png") for tag, a in page.tags if tag == "img")
    assert page.inside["td"][0].strip() == EVIL
    assert [file.name for file in report.parent.iterdir()] == ["report.html"]


def test_only_the_pages_own_scripts_may_run(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    own = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.inside["script"][1:]]
    assert policy is not None
    assert re.findall(r"'sha256-([^']+)'", policy) == own
    assert "default-src 'none'" in policy
    assert "script-src 'unsafe" not in policy


def test_the_atoms_are_in_the_page_and_6144_of_them_under_20_mb(report: Path) -> None:
    found = json.loads(Page(report.read_text(encoding="utf-8")).inside["script"][0])
    expected = asdict(atoms(6144))
    assert [math.isnan(value) for value in expected["columns"][2]["values"]].count(True) == 1
    expected["columns"][2]["values"][7] = None  # JSON has no NaN
    assert found == json.loads(json.dumps(expected))
    assert report.stat().st_size < 20e6


def test_the_script_reads_the_fields_that_the_page_has(report: Path) -> None:
    """Also where no Chromium runs it."""
    data, _, script = Page(report.read_text(encoding="utf-8")).inside["script"]
    assert set(re.findall(r"\bdata\.(\w+)", script)) | {"samples"} == json.loads(data).keys()
    assert set(re.findall(r"\bcolumn\.(\w+)", script)) == json.loads(data)["columns"][0].keys()


@pytest.fixture(scope="module")
def tab(report: Path, tmp_path_factory: pytest.TempPathFactory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(report)
        yield opened


def shown(tab: Browser) -> list[int]:
    return tab.run("[...document.querySelectorAll('#atom-rows tr')].map(row => +row.dataset.atom)")


def search(tab: Browser, text: str) -> None:
    tab.run(
        f"{{ const box = document.getElementById('atom-search'); box.value = {json.dumps(text)};"
        f" box.dispatchEvent(new Event('input')); }}"
    )


@needs_chromium
def test_it_opens_without_an_error_and_runs_nothing_from_the_text(tab: Browser) -> None:
    assert tab.errors == []
    assert tab.run("typeof window.broken") == "undefined"
    assert tab.run("document.querySelector('table.units td').textContent") == EVIL
    tab.run("location.hash = 'atom-0'")
    assert EVIL in tab.run("document.getElementById('atom-detail').textContent")
    assert tab.run("document.querySelectorAll('#atom-detail img, #atom-detail script').length") == 0


@needs_chromium
def test_sorting_orders_by_the_column_and_puts_what_is_missing_last(tab: Browser) -> None:
    search(tab, "")
    rate = atoms(6144).columns[1].values
    press = "document.querySelectorAll('#atom-head button')[{}].click()"
    tab.run(press.format(1))
    expected = sorted(range(6144), key=lambda atom: -rate[atom])[:50]
    assert shown(tab) == expected
    tab.run(press.format(1))
    assert shown(tab) == sorted(range(6144), key=lambda atom: rate[atom])[:50]
    for _ in range(2):
        tab.run(press.format(2))
        search(tab, "atom<10")
        assert shown(tab)[-1] == 7
        search(tab, "")
    tab.run(press.format(0))


@needs_chromium
@pytest.mark.parametrize("key", ["coherence", "certified_level_4", "unit"])
def test_a_table_sorts_by_any_column_both_ways_with_dashes_last(tab: Browser, key: str) -> None:
    """Units are words even where they begin with a number."""
    header = next(column.header for column in COLUMNS if column.key == key)
    press = (
        "{ const head = [...document.querySelectorAll('table.units th button')]"
        f".find(button => button.textContent === {json.dumps(header)});"
        " head.click(); [...head.closest('table').tBodies[0].rows].map(row => row.cells[0].textContent) }"
    )
    known = [row for row in ROWS if row[key] is not None and row[key] == row[key]]
    for reverse in (True, False):
        units = tab.run(press)
        ordered = [row["unit"] for row in sorted(known, key=lambda row: row[key], reverse=reverse)]
        assert units[: len(known)] == ordered
        assert sorted(units) == sorted(row["unit"] for row in ROWS)


@needs_chromium
def test_search_finds_words_and_compares_columns(tab: Browser) -> None:
    rate = atoms(6144).columns[1].values
    search(tab, "rate>0.99 atom<3000")
    assert sorted(shown(tab)) == [i for i in range(3000) if rate[i] > 0.99][:50]
    search(tab, "WORD1999 atom>=5000 h_token=3")
    data = atoms(6144)
    vocabulary = data.vocabulary
    having = [
        i
        for i in range(5000, 6144)
        if i % 5 == 3
        and any(
            "word1999" in "".join(vocabulary[t] for t in line[2:])
            for line in [*data.contexts[i], [0, 0, *(data.raised[i] or [])]]
        )
    ]
    assert having
    assert shown(tab) == having[:50]
    search(tab, "nowhere-to-be-found")
    assert shown(tab) == []
    assert tab.errors == []


@needs_chromium
def test_an_atom_shows_its_contexts_and_leads_to_its_neighbours(tab: Browser) -> None:
    search(tab, "")
    tab.run("document.querySelector('#atom-rows tr').click()")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert tab.run("document.querySelectorAll('#atom-detail p.context').length") == 8
    facts = "document.querySelector('#atom-detail dl')"
    assert tab.run(f"{facts}.scrollWidth <= {facts}.clientWidth")
    heads = tab.run("document.querySelectorAll('#atom-head button').length")
    for pairs in ("#atom-detail dl dt", "#atom-definitions dd"):
        assert tab.run(f"document.querySelectorAll('{pairs}').length") == heads
    assert tab.run("document.querySelector('#atom-detail mark').textContent") != ""
    tab.run("document.querySelector('#atom-detail a').click()")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert tab.run("document.querySelector('#atom-detail h3').textContent") == "Atom 1"


@needs_chromium
def test_of_ten_thousand_atoms_only_a_page_is_drawn(tab: Browser, tmp_path: Path) -> None:
    write(tmp_path / "report.html", 10_000)
    tab.open(tmp_path / "report.html")
    drawn = "document.querySelectorAll('#atom-rows tr').length"
    assert tab.run(drawn) == 50
    tab.run("document.getElementById('atom-on').click()")
    assert shown(tab) == list(range(50, 100))
    search(tab, "rate>0.5")
    assert tab.run(drawn) == 50
    assert tab.errors == []
